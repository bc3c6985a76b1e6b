package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"tagalong.org/tagalong/app/direxchange"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p/exchange"
)

var fleetNames = []string{"a", "b", "c"}

func deviceKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func deviceID(name string) string {
	return hex.EncodeToString(deviceKey(name).Public().(ed25519.PublicKey))
}

// openDirectory opens a device's directory, in one fleet with the others.
func openDirectory(name, dir string) (*directory.Directory, error) {
	k := deviceKey(name)
	d, err := directory.Open(directory.Options{
		Dir: dir, Self: deviceID(name), Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Sign: func(msg []byte) ([]byte, error) { return ed25519.Sign(k, msg), nil },
		Verify: func(id string, msg, sig []byte) error {
			b, err := hex.DecodeString(id)
			if err != nil || len(b) != ed25519.PublicKeySize || !ed25519.Verify(b, msg, sig) {
				return errors.New("wrong signature")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	for _, other := range fleetNames {
		if other != name && !d.IsMember(deviceID(other)) {
			if err := d.AddMember(directory.Member{ID: deviceID(other), Name: other}); err != nil {
				return nil, errors.Join(err, d.Close())
			}
		}
	}
	return d, nil
}

func fleetVM(id, state string) directory.VM {
	return directory.VM{ID: id, Name: id, DiskBytes: fleetBlocks * 4096, State: state}
}

func createVM(d *directory.Directory, id string) error {
	t, err := d.NewCreated(id)
	if err != nil {
		return err
	}
	if err := d.AppendTransfer(t); err != nil {
		return err
	}
	return d.PutVM(fleetVM(id, "stopped"))
}

// digest names what a directory holds, and how many chunks it lacks.
func digest(d *directory.Directory) string {
	versions := d.Digest()
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintln(h, k, versions[k])
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil)[:8], d.ChunkStats().Missing)
}

// joints are the streams of a directory to the others.
type joints struct {
	dir   *directory.Directory
	self  string
	bytes atomic.Int64 // written
	wg    sync.WaitGroup
}

// counted is a TCP connection as the exchange wants it.
type counted struct {
	*net.TCPConn
	bytes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}

// add serves a stream until ctx ends.
func (j *joints) add(ctx context.Context, nc net.Conn, peer string) {
	s := counted{nc.(*net.TCPConn), &j.bytes}
	j.wg.Go(func() {
		_, _ = s.Write([]byte(j.self)) // one byte; an error shows in what follows
		err := exchange.Serve(ctx, s, deviceID(peer), direxchange.Store{Dir: j.dir}, slog.Default())
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bench: exchange with", peer, "ended:", err)
		}
	})
}

func (j *joints) wait() { j.wg.Wait() }

// dirpeer is a device's directory. It says where it can be met, and then takes orders: "memory", "digest" and "until DIGEST".
func dirpeer(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench dirpeer", flag.ExitOnError)
	dir, name, dial := fs.String("dir", "", "the directory"), fs.String("name", "", "whose"), fs.String("dial", "", "whom to meet")
	if err := fs.Parse(args); err != nil {
		return err
	}
	d, err := openDirectory(*name, *dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return errors.Join(err, d.Close())
	}
	join := &joints{dir: d, self: *name}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			var who [1]byte
			if _, err := nc.Read(who[:]); err == nil {
				join.greet(ctx, nc, string(who[:]))
			}
		}
	})
	for _, addr := range strings.Split(*dial, ",") {
		if addr == "" {
			continue
		}
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			join.add(ctx, nc, "b") // the only one who is there before
		} else {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	fmt.Println(l.Addr())
	err = obeyDirectory(d)
	cancel()
	err = errors.Join(err, l.Close())
	accepting.Wait()
	join.wait()
	return errors.Join(err, d.Close())
}

// greet serves a stream whose other end has said who it is.
func (j *joints) greet(ctx context.Context, nc net.Conn, peer string) {
	s := counted{nc.(*net.TCPConn), &j.bytes}
	j.wg.Go(func() {
		_ = exchange.Serve(ctx, s, deviceID(peer), direxchange.Store{Dir: j.dir}, slog.Default()) // the other end tells
	})
}

func obeyDirectory(d *directory.Directory) error {
	changed, stop := d.Changed()
	defer stop()
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if want, ok := strings.CutPrefix(orders.Text(), "until "); ok {
			for digest(d) != want {
				<-changed
			}
			fmt.Println(want)
			continue
		}
		if orders.Text() == "digest" {
			fmt.Println(digest(d))
			continue
		}
		h, err := memory()
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
			return err
		}
	}
	return orders.Err()
}
