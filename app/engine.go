package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/app/courtesy"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/handover"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/exchange"
	"tagalong.org/tagalong/p2p/farewell"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/p2p/gauge"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/reached"
	"tagalong.org/tagalong/p2p/request"
	"tagalong.org/tagalong/p2p/told"
	"tagalong.org/tagalong/p2p/verify"
)

// Options of an engine. DataDir, Hypervisor and Log are required.
type Options struct {
	// DataDir keeps everything; one engine at a time.
	DataDir string
	// Name is what the person calls this device; "" is the host's name.
	Name string
	// Listen are multiaddrs; none means any address, and the port of the last time if it is free.
	Listen     []string
	Hypervisor hypervisor.Hypervisor
	Log        *slog.Logger
	Version    string
	// Reserve is how many bytes of the file system are left free; 0 is vmdisk's default.
	Reserve int64
	// Around tells what this device runs on and is connected by, for what may be pushed to other sites; nil is to ask the system.
	Around *limits.Around
}

// Engine is one running engine. Its API methods are safe for concurrent use.
type Engine struct {
	opt  Options
	log  *slog.Logger
	name string
	lock *flock.Flock
	run  string // directory of sockets, private
	host *p2p.Host
	dir  *directory.Directory
	hub  hub
	stop context.CancelCauseFunc // ends Run

	// ctx is the lifetime of everything the engine starts; group waits for it.
	ctx   context.Context
	group sync.WaitGroup

	facts     factsCache
	handover  handover.Rule
	powerDown time.Duration // how long a guest may take to shut itself down
	goodbye   time.Duration // how long its end waits for somebody of its site to have read that it goes
	free      func() int64  // how many bytes of memory the system can give away; 0 when it doesn't say
	// admissions is held while a guest is promised memory.
	admissions sync.Mutex
	recordDue  chan struct{} // 1-buffered: some VM's record may have to be written
	// replicasDue is the same of what its replicas lack.
	replicasDue chan struct{}
	offline     offlineMode
	farewell    farewellState
	courtesy    *courtesy.Courtesy
	recording   *recordPace
	sites       sites
	heralding   *heralding
	hardware    hardware
	limits      *limits.Limits // of pushes to and from other sites
	post        post
	blocks      blockindex.Index // what pushes may find here
	announcing  sync.Mutex       // held while this device's own record is written

	// following is held over a look at who is in the fleet and what follows from it.
	following sync.Mutex

	// guarded by mu
	mu       sync.Mutex
	vms      map[string]*vm
	unopened map[string]*api.Error // VMs on this device that couldn't be opened, and why
	links    map[string]*link      // by device
	jobs     []*job
	pairing  *pairingRun
	// standing is who is in the fleet and who left it, as the network was last told; announced where this device said that it
	// listens.
	standing  map[string]string
	announced []string
	// leaving is why this device's removal isn't carried out yet; nil if it is, or was never removed.
	leaving *api.Leaving
}

// errShutdown is the cause of an end that somebody asked for.
var errShutdown = errors.New("shutdown was asked for")

// Run runs an engine until ctx ends or somebody asks for its end. Running VMs go on without it.
// ready, if not nil, is called when the API answers.
func Run(ctx context.Context, opt Options, ready func()) error {
	e, err := open(opt)
	if err != nil {
		return err
	}
	ctx, e.stop = context.WithCancelCause(ctx)
	defer e.stop(nil)
	err = e.serve(ctx, ready)
	if errors.Is(context.Cause(ctx), errShutdown) || errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// open takes the data directory and builds the parts, nothing of which runs yet.
func open(opt Options) (_ *Engine, err error) {
	if err := os.MkdirAll(opt.DataDir, 0o700); err != nil {
		return nil, dataDirError(opt.DataDir, err)
	}
	lock := flock.New(filepath.Join(opt.DataDir, "engine.lock"))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return nil, dataDirError(opt.DataDir, err)
	case !held:
		return nil, &api.Error{Code: api.CodeEngineRunning, Sentence: "Another Tagalong engine already runs on " + opt.DataDir + ".",
			Next: "Use that one (tagalong status), or give this one a directory of its own with --data."}
	}
	e := &Engine{opt: opt, log: opt.Log, name: opt.Name, lock: lock, handover: handover.Usual, powerDown: powerDownTimeout, goodbye: goodbyeTimeout, free: freeMemory, vms: map[string]*vm{}, unopened: map[string]*api.Error{}, links: map[string]*link{}, recordDue: make(chan struct{}, 1), replicasDue: make(chan struct{}, 1)}
	e.courtesy = courtesy.New(courtesy.Usual, e.guestsServed)
	e.recording = e.newRecordPace()
	e.post = post{times: postal.Usual, began: time.Now(), due: make(chan struct{}, 1), runs: map[pushKey]*pushRun{}, reports: map[string]report{}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.name == "" {
		e.name = hostName()
	}
	e.run = filepath.Dir(api.SocketPath(opt.DataDir))
	fleet := &fleet{}
	listen, err := e.listenAddrs()
	if err != nil {
		return nil, err
	}
	hostOptions := p2p.Options{
		KeyFile: filepath.Join(opt.DataDir, "device.key"), Listen: listen, Members: fleet, Farewells: farewells{fleet}, Addresses: fleet,
		Log: opt.Log.With("part", "p2p"), Version: opt.Version, Discovery: true,
	}
	e.host, err = p2p.New(hostOptions)
	if errors.Is(err, p2p.ErrListen) && len(opt.Listen) == 0 {
		// The port of the last time is taken now: any other does, the devices find each other anyway.
		hostOptions.Listen = anyPort
		e.host, err = p2p.New(hostOptions)
	}
	if err != nil {
		return nil, fmt.Errorf("start the network: %w", err)
	}
	e.dir, err = directory.Open(directory.Options{
		Dir: filepath.Join(opt.DataDir, "directory"), Self: e.host.ID(), Sign: e.host.Sign, Verify: p2p.Verify,
		Log: opt.Log.With("part", "directory"),
	})
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	fleet.set(e.dir, e.log)
	e.openSites()
	e.heralding = openHeralding(filepath.Join(opt.DataDir, "told.json"), e.log)
	e.heralding.copies, e.heralding.publish = e.heraldCopies, e.publishSync
	e.openLimits()
	e.openBridge()
	e.openBlocks()
	if err := e.loadOffline(); err != nil {
		return nil, err
	}
	e.rememberPort()
	return e, nil
}

// close undoes open.
func (e *Engine) close() {
	e.closeHost()
	if e.dir != nil {
		if err := e.dir.Close(); err != nil {
			e.log.Warn("Closing the directory failed", "error", err)
		}
	}
	if err := e.lock.Unlock(); err != nil {
		e.log.Warn("Unlocking the data directory failed", "error", err)
	}
}

// closeHost hangs up on everybody and waits for what handles their streams.
func (e *Engine) closeHost() {
	if e.host == nil {
		return
	}
	if err := e.host.Close(); err != nil {
		e.log.Warn("Closing the network failed", "error", err)
	}
}

func (e *Engine) serve(ctx context.Context, ready func()) error {
	defer e.close()
	listener, err := api.Listen(api.SocketPath(e.opt.DataDir))
	if err != nil {
		return err
	}
	ctx, parted := e.parting(ctx)
	defer parted()
	group, ctx := errgroup.WithContext(ctx)
	e.ctx = ctx
	// VMs that run already wait for their disks: they come before everything else.
	if err := e.openVMs(); err != nil {
		listener.Close()
		return err
	}
	defer e.keepBlocks()
	// The network first: its handlers live as long as their connections, and start things of ours.
	defer e.closeVMs()
	defer e.group.Wait()
	defer e.closeHost()

	e.host.Handle(mirror.Protocol, e.handleMirror)
	e.host.Handle(compare.Protocol, e.handleCompare)
	e.host.Handle(push.Protocol, e.handlePush)
	e.host.Handle(reached.Protocol, e.handleReached)
	e.host.Handle(request.Protocol, e.handleRequest)
	e.host.Handle(handoff.Protocol, e.handleControl)
	e.host.Handle(handoff.MemoryProtocol, e.handleMemory)
	e.host.Handle(handoff.SetsProtocol, e.handleLacking)
	e.host.Handle(gauge.Protocol, e.handleGauge)
	e.host.Handle(fetch.Protocol, e.handleFetch)
	e.host.Handle(exchange.Protocol, e.handleExchange)
	e.host.Handle(told.Protocol, e.handleTold)
	e.host.Handle(mend.Protocol, e.handleMend)
	e.host.Handle(verify.Protocol, e.handleVerify)
	e.host.Handle(verify.ProtocolV1, e.handleVerify)
	e.host.Handle(farewell.Protocol, e.handleFarewell)
	e.host.Handle(compare.ProtocolV1, e.handleCompare)
	// What the record said of where this device is held before it was off.
	e.tickSites()
	e.announce()
	if err := e.resumeOffline(); err != nil {
		listener.Close()
		return err
	}

	group.Go(func() error { return e.host.Serve(ctx) })
	group.Go(func() error { return e.followPeers(ctx) })
	group.Go(func() error { return e.followFarewells(ctx) })
	group.Go(func() error { return e.followDirectory(ctx) })
	group.Go(func() error { return e.tellReplicas(ctx) })
	group.Go(func() error { return e.heraldSyncs(ctx) })
	group.Go(func() error { return e.tellWhoMayLeave(ctx) })
	group.Go(func() error { return e.followSites(ctx) })
	group.Go(func() error { return e.followHardware(ctx) })
	group.Go(func() error { return e.limits.Run(ctx) })
	group.Go(func() error { return e.postChanges(ctx) })
	group.Go(func() error { return e.followLimits(ctx) })
	group.Go(func() error { return e.scrub(ctx) })
	group.Go(func() error { return e.reopenVMs(ctx) })
	group.Go(func() error {
		server := api.NewServer(e, e.log.With("part", "api"))
		return server.Serve(ctx, listener)
	})
	e.log.Info("Engine started", "device", e.host.ID(), "name", e.name, "data", e.opt.DataDir, "addresses", e.host.Addrs())
	if ready != nil {
		ready()
	}
	err = group.Wait()
	e.log.Info("Engine ends", "cause", context.Cause(ctx))
	return err
}

// announce writes this device's own record, and says whether it could.
func (e *Engine) announce() bool {
	e.announcing.Lock()
	defer e.announcing.Unlock()
	d := directory.Device{ID: e.host.ID(), Name: e.name, Addrs: e.host.Addrs(), AppVersion: e.opt.Version, At: time.Now(), Site: e.sites.said(), Hardware: e.saidHardware()}
	d.Since, d.Offline = e.offlineSince()
	at := slices.Sorted(slices.Values(d.Addrs))
	switch err := e.dir.PutDevice(d); {
	case errors.Is(err, directory.ErrNoSpace):
		return false // the directory has said that the disk is full
	case err != nil:
		e.log.Error("Writing this device's record failed", "error", err)
		return false
	}
	e.mu.Lock()
	e.announced = at
	e.mu.Unlock()
	return true
}

// Shutdown implements api.Engine.
func (e *Engine) Shutdown(context.Context) error {
	e.stop(errShutdown)
	return nil
}

// Watch implements api.Engine.
func (e *Engine) Watch(ctx context.Context, after uint64) (<-chan api.Event, error) {
	return e.hub.watch(ctx, after), nil
}

// tell publishes an event about a VM (may be nil).
func (e *Engine) tell(kind string, v *vm, text string) {
	ev := api.Event{Kind: kind, Text: text}
	if v != nil {
		ev.VM = v.id
	}
	e.hub.publish(ev)
}

// spawn runs a goroutine that the engine waits for before it ends.
func (e *Engine) spawn(fn func()) {
	e.group.Add(1)
	go func() {
		defer e.group.Done()
		fn()
	}()
}

// anyPort is every address of the device, on a port that the system chooses.
var anyPort = []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"}

func (e *Engine) portFile() string { return filepath.Join(e.opt.DataDir, "port") }

// listenAddrs prefers the port of the last time: the other devices remember it.
func (e *Engine) listenAddrs() ([]string, error) {
	if len(e.opt.Listen) > 0 {
		return e.opt.Listen, nil
	}
	b, err := os.ReadFile(e.portFile())
	if err != nil {
		return anyPort, nil
	}
	port := strings.TrimSpace(string(b))
	if _, err := net.LookupPort("tcp", port); err != nil || port == "0" {
		return anyPort, nil
	}
	return []string{"/ip4/0.0.0.0/tcp/" + port, "/ip6/::/tcp/" + port}, nil
}

func (e *Engine) rememberPort() {
	port := fmt.Appendln(nil, e.host.Port())
	if b, err := os.ReadFile(e.portFile()); err == nil && bytes.Equal(b, port) {
		return
	}
	if err := durable.Write(e.portFile(), port); err != nil {
		e.log.Warn("Remembering the port failed", "error", err)
	}
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "this device"
	}
	return name
}

// factsCache remembers for a while that the hypervisor's probe failed. A success is the hypervisor's to remember: it knows when another program was
// installed.
type factsCache struct {
	mu    sync.Mutex
	facts hypervisor.Facts
	err   error
	at    time.Time
}

// factsAge is how long a failed probe is believed: the person may install QEMU meanwhile.
const factsAge = 5 * time.Second

func (c *factsCache) get(ctx context.Context, h hypervisor.Hypervisor) (hypervisor.Facts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || c.err == nil || time.Since(c.at) > factsAge {
		c.facts, c.err = h.Probe(ctx)
		c.at = time.Now()
	}
	return c.facts, c.err
}
