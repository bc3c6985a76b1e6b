package hydrating

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
)

const (
	// lookEvery is how often it is looked who is there, besides being told.
	lookEvery = 250 * time.Millisecond
	// surveyEvery is how long it is believed where what is lacking is.
	surveyEvery = time.Second
	// alone is how long there may be no holder before that is said: connections come and go.
	alone = 2 * time.Second
	// troublePause is how long a disk that couldn't take what was fetched is left alone.
	troublePause = 5 * time.Second
)

// ErrElsewhere: the disk isn't active under the Hello's term any more.
var ErrElsewhere = errors.New("hydrating: the disk goes on under another term")

// Net is where holders are found.
type Net interface {
	// Connected are the devices that can be asked now.
	Connected() []string
	// Watch signals changes of Connected, until stop is called; the channel is 1-buffered.
	Watch() (changed <-chan struct{}, stop func())
	// Open opens a stream of fetch.Protocol to a device.
	Open(ctx context.Context, device string) (fetch.Stream, error)
}

// Options of a Run. Disk, Hello and Net are required.
type Options struct {
	// Disk is active under Hello.Term and lacks blocks of what it was at Hello.At.
	Disk  *vmdisk.Store
	Hello fetch.Hello
	Net   Net
	Log   *slog.Logger
	// Allow, if not nil, says what may be pulled from a device; nil is everything. It is asked often, and must not block.
	Allow func(device string) fetch.Allowance
	// Waits, if not nil, is called when for a while nobody has been there who has some of what is lacking, or of what the guest reads, with the
	// devices that could help, and with nil when that is over. It must not block.
	Waits func(could []string)
}

// Run makes a disk whole from whoever holds what it lacks. Its methods may be called from any goroutine.
type Run struct {
	o    Options
	log  *slog.Logger
	pool *fetch.Pool
	// known are asked, there answer; Serve's.
	known, there map[string]bool

	mu      sync.Mutex
	waiting bool
	survey  holders.Survey
	looked  time.Time // when survey was made; zero is anew
}

// New is a Run that hasn't begun. Serve must be called. Errors: fetch.ErrHello.
func New(o Options) (*Run, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	pool, err := fetch.NewPool(o.Hello, fetch.Options{Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("hydrating: %w", err)
	}
	return &Run{o: o, log: o.Log, pool: pool, known: map[string]bool{}, there: map[string]bool{}}, nil
}

// Serve fetches until nothing is stale, and then returns nil; ErrElsewhere if the disk's term is over, otherwise what ended it for good: the cause of
// ctx, vmdisk.ErrClosed, vmdisk.ErrFailed. What can pass is waited for. Everything that it began has ended when it returns.
func (r *Run) Serve(ctx context.Context) error {
	defer r.pool.Close()
	for {
		err := r.once(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errAgain):
			continue
		case errors.Is(err, ErrElsewhere), errors.Is(err, vmdisk.ErrClosed), errors.Is(err, vmdisk.ErrFailed):
			return err
		}
		r.log.Error("Making the disk whole failed, it is tried again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(troublePause):
		}
	}
}

// errAgain: a holder has come that may have what couldn't be fetched so far.
var errAgain = errors.New("hydrating: begin anew")

// once runs the disk's own fetching, until it ends or should begin anew.
func (r *Run) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() { ended <- r.o.Disk.Hydrate(ctx, holders.Source{Pool: r.pool}) }()
	changed, stop := r.o.Net.Watch()
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	lonely := time.Now()
	for {
		news := r.look()
		p, lacks := r.o.Disk.Hydration()
		if s := r.Survey(); len(r.there) > 0 && s.Nobodys < s.Left && p.Blocked == 0 {
			lonely = time.Now()
		}
		r.wait(time.Since(lonely) >= alone)
		if lacks && news && p.Err != nil {
			cancel(errAgain)
		}
		if r.o.Disk.Info().Term != r.o.Hello.Term {
			cancel(ErrElsewhere)
		}
		select {
		case err := <-ended:
			if cause := context.Cause(ctx); err != nil && cause != nil {
				return cause
			}
			if err == nil {
				r.wait(false)
			}
			return err
		case <-changed:
		case <-tick.C:
		}
	}
}

// look asks those who are connected, and says whether one answers that didn't.
func (r *Run) look() (news bool) {
	now := map[string]bool{}
	for _, device := range r.o.Net.Connected() {
		now[device] = true
		if !r.known[device] {
			r.known[device] = true
			r.pool.Add(fetch.Holder{
				Name: device, Judge: holders.Judge(r.o.Disk, device),
				Dial: func(ctx context.Context) (fetch.Stream, error) { return r.o.Net.Open(ctx, device) },
			})
		}
		if r.o.Allow != nil {
			r.pool.Allow(device, r.o.Allow(device))
		}
	}
	for device := range r.known {
		if !now[device] {
			delete(r.known, device)
			r.pool.Remove(device)
		}
	}
	answers := map[string]bool{}
	for _, h := range r.pool.Holders() {
		if h.Connected {
			answers[h.Name] = true
			news = news || !r.there[h.Name]
		}
	}
	if news || len(answers) != len(r.there) {
		r.mu.Lock()
		r.looked = time.Time{}
		r.mu.Unlock()
	}
	r.there = answers
	return news
}

// wait notes whether nobody is there who could help, and says so once.
func (r *Run) wait(on bool) {
	r.mu.Lock()
	news := r.waiting != on
	r.waiting = on
	r.mu.Unlock()
	if !news || r.o.Waits == nil {
		return
	}
	if !on {
		r.o.Waits(nil)
		return
	}
	could := r.Survey().Helpers
	if could == nil {
		could = []string{}
	}
	r.o.Waits(could)
}

// Survey says where what is lacking is, as of a second ago at most.
func (r *Run) Survey() holders.Survey {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.looked) >= surveyEvery {
		var there, pull []string
		for _, h := range r.pool.Holders() {
			if h.Connected {
				there = append(there, h.Name)
				if h.Pulled {
					pull = append(pull, h.Name)
				}
			}
		}
		r.survey, r.looked = holders.Look(r.o.Disk, there, pull), now
	}
	return r.survey
}

// Waiting says that for a while nobody has been there who has some of what is lacking, or of what the guest reads.
func (r *Run) Waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// Holders says how it goes with those who are asked, by name.
func (r *Run) Holders() []fetch.HolderInfo { return r.pool.Holders() }
