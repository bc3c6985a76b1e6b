package nbd

import "io"

// input is what a client sent, taken in as much at a time as there is. Its user sees the bytes where they
// lie, so that small data needs no copy.
type input struct {
	from io.Reader
	buf  []byte
	// buf[start:end] has come and is not used yet.
	start, end int
}

func newInput(from io.Reader, size int) *input { return &input{from: from, buf: make([]byte, size)} }

// buffered is how many bytes can be used without waiting.
func (in *input) buffered() int { return in.end - in.start }

// peek waits for n bytes, at most the size of the buffer, and returns them. They are valid until the next call of peek
// or Read. It takes in no more than most bytes at a time, or n if that is more: what will follow may have a better place to
// go. Errors: io.EOF when nothing came, io.ErrUnexpectedEOF when less than n did, that of the connection.
func (in *input) peek(n, most int) ([]byte, error) {
	if in.start == in.end {
		in.start, in.end = 0, 0
	}
	if in.start+n > len(in.buf) {
		in.end = copy(in.buf, in.buf[in.start:in.end])
		in.start = 0
	}
	for in.buffered() < n {
		k, err := in.from.Read(in.buf[in.end:min(len(in.buf), in.start+max(n, most))])
		in.end += k
		if err != nil && in.buffered() < n {
			if err == io.EOF && in.buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return in.buf[in.start : in.start+n], nil
}

// skip uses n of the bytes that peek returned.
func (in *input) skip(n int) { in.start += n }

// Read is io.Reader.Read: first what has come already, then straight from the client.
func (in *input) Read(p []byte) (int, error) {
	if in.start == in.end {
		return in.from.Read(p)
	}
	n := copy(p, in.buf[in.start:in.end])
	in.start += n
	return n, nil
}
