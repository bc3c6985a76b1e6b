package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/direxchange"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/exchange"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
)

// link is the control stream to one device: the words of all hand-offs between the two, in order.
type link struct {
	device string
	out    chan handoff.Msg
	cancel context.CancelFunc
}

// maxOut bounds what waits to be sent; the machine sends again what matters.
const maxOut = 64

// sendTimeout bounds one message; the heartbeat notices a dead device earlier.
const sendTimeout = 10 * time.Second

var hypervisorDied = baton.Event{Kind: baton.EvHypervisorDied}

// followPeers keeps the long-lived streams to every connected device: of each pair, the device with
// the smaller ID opens them.
func (e *Engine) followPeers(ctx context.Context) error {
	wake, stop := e.host.Watch()
	defer stop()
	open := map[string]context.CancelFunc{} // by device and protocol
	ended := make(chan string)
	known := map[string]bool{}
	for {
		for _, p := range e.host.Peers() {
			if p.Connected != known[p.ID] {
				known[p.ID] = p.Connected
				e.tellConnection(p.ID, p.Connected)
			}
			if !p.Connected || e.host.ID() >= p.ID {
				continue
			}
			for proto, serve := range map[string]func(context.Context, p2p.Stream){
				handoff.Protocol: e.handleControl, exchange.Protocol: e.handleExchange,
			} {
				key := p.ID + proto
				if open[key] != nil {
					continue
				}
				streamCtx, cancel := context.WithCancel(ctx)
				open[key] = cancel
				e.spawn(func() {
					e.holdStream(streamCtx, p.ID, proto, serve)
					select {
					case ended <- key:
					case <-ctx.Done():
					}
				})
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case key := <-ended:
			open[key]()
			delete(open, key)
		}
	}
}

// reopenPause keeps a device that refuses a protocol from being asked in a tight loop.
const reopenPause = 300 * time.Millisecond

// holdStream opens one stream and serves it to its end.
func (e *Engine) holdStream(ctx context.Context, device, proto string, serve func(context.Context, p2p.Stream)) {
	s, err := e.host.Open(ctx, device, proto)
	if err == nil {
		serve(ctx, s)
	} else if ctx.Err() == nil && !errors.Is(err, p2p.ErrNotConnected) {
		e.log.Warn("Opening a stream failed", "device", device, "protocol", proto, "error", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(reopenPause):
	}
}

func (e *Engine) tellConnection(device string, connected bool) {
	kind, text := "device.disconnected", e.deviceName(device)+" is gone."
	if connected {
		kind, text = "device.connected", e.deviceName(device)+" is here."
		e.tellOfflineLater(device)
	} else if _, away := e.offlineSince(); away {
		text = "" // that is what working offline means
	}
	e.hub.publish(api.Event{Kind: kind, Device: device, Text: text})
}

// handleExchange keeps the two directories alike while the stream lasts.
func (e *Engine) handleExchange(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	err := exchange.Serve(ctx, s, s.Peer(), direxchange.Store{Dir: e.dir}, e.log.With("part", "exchange"))
	if errors.Is(err, exchange.ErrProtocol) {
		e.dir.Strike(s.Peer(), "exchange against the rules", err)
	}
	e.log.Log(ctx, endLevel(err), "Exchanging records ended", "device", s.Peer(), "error", err)
}

// handleControl serves the control stream: it is the link to the device until it ends.
func (e *Engine) handleControl(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	conn, err := handoff.Open(ctx, s)
	if err != nil {
		e.log.Warn("Opening the control stream failed", "device", s.Peer(), "error", err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &link{device: s.Peer(), out: make(chan handoff.Msg, maxOut), cancel: cancel}
	e.mu.Lock()
	old := e.links[l.device]
	e.links[l.device] = l
	e.mu.Unlock()
	if old != nil {
		old.cancel()
	}
	e.everyVM(ctx, baton.Event{Kind: baton.EvLinkUp, Peer: l.device})
	writer := make(chan struct{})
	e.spawn(func() {
		defer close(writer)
		defer cancel()
		l.write(ctx, conn)
	})
	err = e.readControl(ctx, l, conn)
	cancel()
	<-writer
	e.mu.Lock()
	current := e.links[l.device] == l
	if current {
		delete(e.links, l.device)
	}
	e.mu.Unlock()
	if current {
		e.everyVM(e.ctx, baton.Event{Kind: baton.EvLinkLost, Peer: l.device})
	}
	e.log.Log(e.ctx, endLevel(err), "The control stream ended", "device", l.device, "error", err)
}

// endLevel tells nonsense from a peer, which somebody should look at, from the end of a
// connection, which the network has told already.
func endLevel(err error) slog.Level {
	if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrTooLarge) || errors.Is(err, wire.ErrVersion) {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (l *link) write(ctx context.Context, conn *handoff.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-l.out:
			sendCtx, cancel := context.WithTimeout(ctx, sendTimeout)
			err := conn.Send(sendCtx, m)
			cancel()
			if err != nil {
				_ = conn.Reset()
				return
			}
		}
	}
}

// readControl hears messages until the stream fails, and returns why.
func (e *Engine) readControl(ctx context.Context, l *link, conn *handoff.Conn) error {
	for {
		m, err := conn.Recv(ctx)
		if errors.Is(err, handoff.ErrUnknownType) {
			e.log.Warn("A control message of an unknown type was ignored", "device", l.device, "error", err)
			continue
		}
		if err != nil {
			return err
		}
		if err := e.hear(ctx, l.device, m); err != nil {
			e.log.Warn("A control message was refused", "device", l.device, "type", m.Body.Type(), "vm", m.VM, "error", err)
		}
	}
}

// everyVM posts an event to all VMs.
func (e *Engine) everyVM(ctx context.Context, ev baton.Event) {
	e.mu.Lock()
	vms := make([]*vm, 0, len(e.vms))
	for _, v := range e.vms {
		vms = append(vms, v)
	}
	e.mu.Unlock()
	for _, v := range vms {
		v.post(ctx, ev)
	}
}

// tellDevice queues a message; false if the device has no link or doesn't read.
func (e *Engine) tellDevice(device string, m handoff.Msg) bool {
	e.mu.Lock()
	l := e.links[device]
	e.mu.Unlock()
	if l == nil {
		return false
	}
	select {
	case l.out <- m:
		return true
	default:
		return false
	}
}

// send turns a send action into a message. Without a link it is dropped; the machine repeats
// what matters.
func (v *vm) send(a baton.Action) {
	m := handoff.Msg{VM: v.id, Ask: a.Ask, Attempt: a.Attempt}
	switch a.Kind {
	case baton.ActSendAsk:
		m.Body = v.ask()
	case baton.ActSendRefuse:
		m.Body = handoff.Refuse{Reason: a.Reason}
	case baton.ActSendOffer:
		kind := handoff.KindBaton
		if a.Live {
			kind = handoff.KindTeleport
		}
		m.Body = handoff.Offer{Kind: kind, Term: a.Term, Hardware: v.hardwareHash(), Record: v.signedRecord(),
			PostCopy: a.Live && v.wished(a.Peer).way == api.WayPostCopy}
		v.offered(a.Peer, a.Live)
	case baton.ActSendReady:
		m.Body = handoff.Ready{}
	case baton.ActSendLoaded:
		m.Body = handoff.Loaded{}
	case baton.ActSendTransfer:
		record := v.signedTransfer(a.Term)
		if record == nil {
			return
		}
		v.finalTotals(a.Peer)
		m.Body = handoff.Transfer{Record: record, Live: a.Live, GuestHeld: a.GuestHeld, StoodNS: int64(v.switchStood()), Dirty: v.exportDirty()}
	case baton.ActSendReturned:
		record := v.signedTransfer(a.Term)
		if record == nil {
			return
		}
		m.Body = handoff.Returned{Record: record, Live: a.Live}
	case baton.ActSendActive:
		m.Body = handoff.Active{Term: a.Term}
		if s, ok := v.doneUnder(v.e.host.ID()); ok {
			v.e.spawn(func() { v.noteSwitch(a.Term, s) })
		}
		v.e.spawn(v.syncFeeds)
		if v.withhold(a) {
			return
		}
	case baton.ActSendAbort:
		m.Body = handoff.Abort{Reason: a.Reason}
	case baton.ActSendAborted:
		m.Body = handoff.Aborted{Reason: a.Reason}
	case baton.ActSendQuery:
		m.Body = handoff.Query{}
	case baton.ActSendCancel:
		m.Body = handoff.Cancel{}
	default:
		v.log.Error("The hand-off asks for something unknown", "action", a.Kind)
		return
	}
	if !v.e.tellDevice(a.Peer, m) {
		v.log.Info("A hand-off message couldn't be sent", "type", m.Body.Type(), "device", a.Peer)
	}
}

// signedRecord is what this device, the VM's owner, has written of it last, as it travels; nil if it can't be had. No change of it is under way: whoever
// makes one holds the VM.
func (v *vm) signedRecord() []byte {
	v.saving.Lock()
	defer v.saving.Unlock()
	r, ok := v.e.dir.VMRecord(v.id)
	if !ok || r.Writer != v.e.host.ID() {
		return nil // it has yet to write it under this term
	}
	b, err := json.Marshal(r)
	if err != nil || len(b) > handoff.MaxRecord {
		v.log.Warn("A VM's record doesn't come along with its offer", "bytes", len(b), "error", err)
		return nil
	}
	return b
}

// hearRecord takes in what the giver has written of the VM, before anything is made of it here. What the directory doesn't take is left to the exchange
// of records, which does it all over.
func (v *vm) hearRecord(device string, record []byte) {
	if len(record) == 0 {
		return
	}
	var r directory.Record
	err := json.Unmarshal(record, &r)
	switch {
	case err != nil:
	case r.Key != "vm/"+v.id && !strings.HasPrefix(r.Key, "vm/"+v.id+"/"):
		err = errForeignRecord
	default:
		err = v.e.dir.Apply(device, r)
	}
	if err != nil {
		v.log.Info("The record that came with an offer wasn't taken", "device", device, "error", err)
	}
}

// signedTransfer is the transfer that began a term, as it travels; nil if it can't be had.
func (v *vm) signedTransfer(term uint64) []byte {
	t, ok := v.e.dir.Transfer(v.id, term)
	if !ok {
		v.log.Error("A signed transfer is missing", "term", term)
		return nil
	}
	b, err := json.Marshal(t)
	if err != nil {
		v.log.Error("Describing a transfer failed", "term", term, "error", err)
		return nil
	}
	return b
}

// ask is what this device says of itself when it wants a VM.
func (v *vm) ask() handoff.Ask {
	f := handoff.Facts{Memory: handoff.MemoryVersion}
	if facts, err := v.e.facts.get(v.e.ctx, v.e.opt.Hypervisor); err == nil {
		f.Hypervisor, f.Accel = facts.Version, facts.Accel
	}
	if left, known := v.e.memoryLeft(v); known {
		f.FreeMemory = max(1, left) // 0 is "unknown"
	}
	f.Device = preflight.Encode(v.e.knownDevice())
	v.mu.Lock()
	defer v.mu.Unlock()
	ask := handoff.Ask{Taker: f}
	if v.wish.device == v.e.host.ID() {
		ask.PauseMS, ask.Way = v.wish.pause.Milliseconds(), string(v.wish.way)
	}
	return ask
}

// hear turns a device's message into an event for the VM it is about.
func (e *Engine) hear(ctx context.Context, device string, m handoff.Msg) error {
	v := e.vm(m.VM)
	if v == nil {
		return e.hearUnknown(device, m)
	}
	ev := baton.Event{Peer: device, Ask: m.Ask, Attempt: m.Attempt}
	switch b := m.Body.(type) {
	case handoff.Invite:
		if device != v.ownerID() {
			return errNotOwner
		}
		_, err := v.take(ctx, wish{way: api.Way(b.Way)})
		if err != nil {
			e.tellDevice(device, handoff.Msg{VM: m.VM, Body: handoff.Refuse{Reason: inviteReason(err)}})
		}
		return err
	case handoff.Progress:
		var s api.Switch
		if err := json.Unmarshal(b.Switch, &s); err != nil {
			return fmt.Errorf("read progress: %w", err)
		}
		v.switchRemote(device, s)
		v.heardRest(device, s)
		ev.Kind = baton.EvProgress
	case handoff.Ask:
		return v.hearAsk(ctx, ev, b)
	case handoff.Refuse:
		if m.Ask == "" {
			v.inviteRefused(device, b.Reason)
			return nil
		}
		v.hearRefusal(b)
		ev.Kind, ev.Reason = baton.EvPeerRefuse, b.Reason
	case handoff.Offer:
		v.hearRecord(device, b.Record)
		v.hearHardware(b.Hardware, b.PostCopy)
		ev.Kind, ev.Term, ev.Live = baton.EvPeerOffer, b.Term, b.Kind == handoff.KindTeleport
	case handoff.Ready:
		ev.Kind = baton.EvPeerReady
	case handoff.Loaded:
		ev.Kind = baton.EvPeerLoaded
	case handoff.Transfer:
		t, err := e.verified(m.VM, device, b.Record)
		if err != nil {
			return err
		}
		v.heardHeld(device, b.GuestHeld)
		v.switchTransfer(time.Duration(b.StoodNS))
		v.receiveDirty(device, t, b.Dirty)
		ev.Kind, ev.Live, ev.GuestHeld, ev.Attempt = baton.EvPeerTransfer, b.Live, b.GuestHeld, t.Attempt
		ev.Term, ev.Position = t.Term, baton.Position(t.Position)
	case handoff.Returned:
		t, err := e.verified(m.VM, device, b.Record)
		if err != nil {
			return err
		}
		ev.Kind, ev.Live, ev.Attempt = baton.EvPeerReturned, b.Live, t.Attempt
		ev.Term, ev.Position = t.Term, baton.Position(t.Position)
	case handoff.Active:
		ev.Kind, ev.Term = baton.EvPeerActive, b.Term
	case handoff.Abort:
		ev.Kind, ev.Reason = baton.EvPeerAbort, b.Reason
	case handoff.Aborted:
		ev.Kind, ev.Reason = baton.EvPeerAborted, b.Reason
	case handoff.Query:
		ev.Kind = baton.EvPeerQuery
	case handoff.Cancel:
		ev.Kind = baton.EvPeerCancel
	default:
		return handoff.ErrUnknownType
	}
	v.post(ctx, ev)
	return nil
}

var errNotOwner = errors.New("only the VM's owner may say so")

var errPassedOver = errors.New("the VM's history went another way")

var errForeignRecord = errors.New("not a record of this VM")

var errForeignTransfer = errors.New("a transfer of another VM, or between other devices")

// verified checks a transfer against the chain of this VM and makes it part of it. That says who
// owns the VM, not that it may run here: that takes the machine's persistOwned.
func (e *Engine) verified(id, device string, record []byte) (directory.Transfer, error) {
	var t directory.SignedTransfer
	if err := json.Unmarshal(record, &t); err != nil {
		return t.Transfer, fmt.Errorf("read the transfer: %w", err)
	}
	if t.VM != id || t.From != device || t.To != e.host.ID() {
		return t.Transfer, errForeignTransfer
	}
	if err := e.dir.AppendTransfer(t); err != nil {
		return t.Transfer, fmt.Errorf("verify the transfer: %w", err)
	}
	// A giver that doesn't know yet that it was taken from hands on a history that lost.
	if term, _, _ := e.dir.Owner(id); term > t.Term {
		return t.Transfer, errPassedOver
	}
	return t.Transfer, nil
}

// hearUnknown answers about a VM that this device has nothing of.
func (e *Engine) hearUnknown(device string, m handoff.Msg) error {
	switch m.Body.(type) {
	case handoff.Ask:
		e.tellDevice(device, handoff.Msg{VM: m.VM, Ask: m.Ask, Body: handoff.Refuse{Reason: baton.ReasonNotOwner}})
	case handoff.Offer, handoff.Loaded, handoff.Query:
		e.tellDevice(device, handoff.Msg{VM: m.VM, Ask: m.Ask, Attempt: m.Attempt, Body: handoff.Aborted{Reason: baton.ReasonUnknown}})
	}
	return nil
}

// switching says whether a hand-off holds the VM.
func (v *vm) switching() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.op == opSwitch
}

// offered begins to tell of the switch on the giver's side. It is for the loop.
func (v *vm) offered(to string, live bool) {
	if _, underWay := v.updateSwitch(func(*switchRun) {}); !underWay {
		v.under, _ = v.beginSwitch(v.e.host.ID(), to, live)
	}
}

// sendProgress tells the taker how far the switch is, from the giver's side.
func (v *vm) sendProgress(s api.Switch) {
	if s.From != v.e.host.ID() {
		return
	}
	b, err := json.Marshal(s)
	if err != nil {
		v.log.Error("Describing the progress failed", "error", err)
		return
	}
	v.e.tellDevice(s.To, handoff.Msg{VM: v.id, Body: handoff.Progress{Switch: b}})
}

// finalTotals sets the counts that the giver tells with the transfer.
func (v *vm) finalTotals(peer string) {
	if v.outgoing == nil {
		return
	}
	v.switchTotals(v.outgoing.Sent(), v.feedCopied(peer))
	if s, ok := v.updateSwitch(func(r *switchRun) { r.s.CanEnd = false }); ok {
		v.sendProgress(s)
	}
}
