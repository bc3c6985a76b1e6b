package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/gauge"
	"tagalong.org/tagalong/p2p/request"
)

// What a look before a switch goes by where no memory was on its way lately: the owner sends the taker some bytes (package gauge), and looks how much its
// guest writes. It takes about a second, and is done when somebody wants to know.

const (
	// askGauge asks a VM's owner for it: the way to who asks.
	askGauge = "gauge"
	// gaugeKept is for how long it is believed before it is done again, and gaugePatience how long it may take.
	gaugeKept     = 20 * time.Second
	gaugePatience = 6 * time.Second
)

// gauged is what was found, as it travels, too. What isn't known is 0.
type gauged struct {
	// Rate is how many bytes a second the way carries, Dirty how many the guest writes anew, Memory how many bytes of its memory it has touched.
	Rate   int64 `json:"rate,omitempty"`
	Dirty  int64 `json:"dirty,omitempty"`
	Memory int64 `json:"memory,omitempty"`
	at     time.Time
}

// gaugedLately is what was found of the way between here and the device, if that is no older than kept.
func (v *vm) gaugedLately(device string, kept time.Duration) (gauged, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g, ok := v.gauged[device]
	return g, ok && time.Since(g.at) < kept
}

func (v *vm) noteGauged(device string, g gauged) {
	g.Rate, g.Dirty, g.Memory = max(g.Rate, 0), max(g.Dirty, 0), max(g.Memory, 0) // a peer may say anything
	g.at = time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gauged == nil {
		v.gauged = map[string]gauged{}
	}
	v.gauged[device] = g
}

// gauge finds out what the way of the VM's memory carries between here and the device, one of which has the VM, if that isn't known. Where it can't be,
// there is no estimate, and that is all.
func (v *vm) gauge(ctx context.Context, device string) {
	v.mu.Lock()
	seen := v.trips[device]
	v.mu.Unlock()
	if _, fresh := v.gaugedLately(device, gaugeKept); fresh || time.Since(seen.at) < tripKept || v.switching() || v.carried() != nil || !v.e.linked(device) {
		return
	}
	if v.owner() {
		v.gaugeTo(ctx, device)
		return
	}
	if err := v.askGauged(ctx, device); err != nil {
		v.log.Info("What the way to a device carries isn't known", "device", device, "error", err)
	}
}

// gaugeTo finds it out as the owner of a guest. One measure at a time is enough.
func (v *vm) gaugeTo(ctx context.Context, device string) {
	v.gauging.Lock()
	defer v.gauging.Unlock()
	guest := v.currentGuest()
	if _, fresh := v.gaugedLately(device, gaugeKept); fresh || guest == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, gaugePatience)
	defer cancel()
	g := gauged{Memory: guest.Resident()}
	wrote := make(chan int64, 1)
	v.e.spawn(func() {
		n, err := guest.DirtyRate(ctx)
		if err != nil {
			v.log.Info("How much the guest writes isn't known", "error", err)
		}
		wrote <- n
	})
	rate, err := v.e.gaugeLine(ctx, v.id, device)
	if err != nil {
		v.log.Info("The link to a device wasn't measured", "device", device, "error", err)
	}
	g.Rate, g.Dirty = rate, <-wrote // it ends with ctx
	if err == nil {
		v.noteGauged(device, g)
	}
}

// gaugeLine measures the link to a device, in bytes a second.
func (e *Engine) gaugeLine(ctx context.Context, vm, device string) (int64, error) {
	s, err := e.host.Open(ctx, device, gauge.Protocol)
	if err != nil {
		return 0, err
	}
	return gauge.Send(ctx, s, vm)
}

// handleGauge takes in what another device measures the link with.
func (e *Engine) handleGauge(ctx context.Context, s p2p.Stream) {
	if err := gauge.Take(ctx, s); err != nil && ctx.Err() == nil {
		e.log.Info("A measure of the link failed", "device", s.Peer(), "error", err)
	}
}

// askGauged has the owner find it out.
func (v *vm) askGauged(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*gaugePatience) // it may be measured for another device at that moment
	defer cancel()
	s, err := v.e.host.Open(ctx, owner, request.Protocol)
	if err != nil {
		return err
	}
	says, err := request.AskFor(ctx, s, request.Request{VM: v.id, What: askGauge, Change: json.RawMessage(`{}`)})
	if err != nil {
		return err
	}
	var g gauged
	if err := json.Unmarshal(says, &g); err != nil {
		return fmt.Errorf("read what the owner has found: %w", err)
	}
	v.noteGauged(owner, g)
	return nil
}

// tellGauged finds it out for a device that asks. One that asks again and again is told what is known.
func (e *Engine) tellGauged(ctx context.Context, device, id string) (json.RawMessage, error) {
	v := e.vm(id)
	switch {
	case v == nil:
		return nil, errNoSuchVM(id, nil)
	case !v.owner():
		return nil, v.rather(v.errNotHere())
	}
	v.gaugeTo(ctx, device)
	g, ok := v.gaugedLately(device, 2*gaugeKept)
	if !ok {
		return nil, errConflict(fmt.Sprintf("What the way from %s carries isn't known.", e.name), "Try again.")
	}
	return json.Marshal(g)
}
