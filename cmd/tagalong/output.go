package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// output is standard output. It remembers its first failure, so that nobody else has to look.
type output struct {
	w      io.Writer
	failed error
}

func (o *output) Write(p []byte) (int, error) {
	if o.failed != nil {
		return 0, o.failed
	}
	n, err := o.w.Write(p)
	o.failed = err
	return n, err
}

// say prints one line for people. Arguments that are strings come from elsewhere and are cleaned.
func (o *output) say(format string, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = clean(text)
		}
	}
	_, _ = fmt.Fprintf(o, format+"\n", args...)
}

// json prints v for scripts, indented.
func (o *output) json(v any) error {
	enc := json.NewEncoder(o)
	enc.SetIndent("", "  ")
	return o.broken(enc.Encode(v))
}

// jsonLine prints v for scripts, on one line.
func (o *output) jsonLine(v any) error { return o.broken(json.NewEncoder(o).Encode(v)) }

// broken is what a person gets to see of a failure to write; nil for none.
func (o *output) broken(err error) error {
	if err == nil {
		return nil
	}
	return &api.Error{Code: api.CodeInternal, Sentence: "The output can't be written.", Cause: err.Error()}
}

// table prints rows in aligned columns below a heading.
func (o *output) table(heading []string, rows [][]string) {
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush()
}

// clean takes out of a text what could steer a terminal or break a table: names come from other
// devices.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, text)
}

// jsonFlag gives a verb its --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON for scripts")
}
