package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/durable"
)

// bridgeFile keeps which bridge the person wants VMs to be on, on this device.
type bridgeFile struct {
	Version int    `json:"version"`
	Bridge  string `json:"bridge"` // a bridge's name, api.BridgeNone, or "" to find one
}

const bridgeVersion = 1

func (e *Engine) bridgePath() string { return filepath.Join(e.opt.DataDir, "bridge.json") }

// openBridge takes up what the person has chosen before. What can't be read counts as no bridge: VMs are then behind this device.
func (e *Engine) openBridge() {
	b, err := os.ReadFile(e.bridgePath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f bridgeFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Version != bridgeVersion {
		err = fmt.Errorf("version %d", f.Version)
	}
	if err != nil {
		e.log.Warn("Reading which bridge VMs are to be on failed", "error", err)
		f.Bridge = api.BridgeNone
	}
	e.hardware.bridge = f.Bridge
}

// SetBridge implements api.Engine. VMs that run keep the network that they have.
func (e *Engine) SetBridge(ctx context.Context, req api.SetBridge) error {
	choice := req.Bridge
	h, able := e.opt.Hypervisor.(bridger)
	switch choice {
	case api.BridgeNone:
	case "", api.BridgeAuto:
		choice = ""
	default:
		if !able {
			return errConflict("VMs can't be on a bridge on this device.", "")
		}
		if err := h.TryBridge(choice); err != nil {
			return explainBridge(h, choice, err)
		}
	}
	if err := durable.Write(e.bridgePath(), must(bridgeFile{bridgeVersion, choice})); err != nil {
		return dataDirError(e.opt.DataDir, err)
	}
	e.hardware.mu.Lock()
	e.hardware.bridge = choice
	e.hardware.mu.Unlock()
	if e.lookAtHardware(ctx) {
		e.announce()
	}
	e.hub.publish(api.Event{Kind: "device.changed", Device: e.host.ID()})
	return nil
}

func must(f bridgeFile) []byte {
	b, _ := json.Marshal(f) // a number and a string
	return b
}

// explainBridge says why VMs can't be on a bridge.
func explainBridge(h bridger, name string, err error) error {
	if known := h.Bridges(); !slices.Contains(known, name) {
		next := "Make one first (your system's network settings call it a bridge), with this device's network card on it."
		if len(known) > 0 {
			next = "There are: " + strings.Join(known, ", ") + "."
		}
		return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no network bridge %q on this device.", name), Next: next, Cause: err.Error()}
	}
	return errNoBridge(err)
}

// findBridge is the bridge that VMs are on here: the person's choice, or the only one there is. why says, in a few words, why there is none.
func (e *Engine) findBridge() (bridge, why string) {
	h, able := e.opt.Hypervisor.(bridger)
	if !able {
		return "", ""
	}
	e.hardware.mu.Lock()
	choice := e.hardware.bridge
	e.hardware.mu.Unlock()
	switch known := h.Bridges(); {
	case choice == api.BridgeNone:
		return "", "it was switched off"
	case choice != "":
	case len(known) == 0:
		return "", "it has no network bridge"
	case len(known) > 1:
		return "", "it has several network bridges"
	default:
		choice = known[0]
	}
	if err := h.TryBridge(choice); err != nil {
		e.log.Info("VMs can't be on the bridge", "bridge", choice, "error", err)
		return "", "its network bridge can't be used"
	}
	return choice, ""
}

// bridgeFor is the bridge that a VM is on here; "" hides it behind this device.
func (e *Engine) bridgeFor(s api.Spec) string {
	if !s.Bridged || !s.Network {
		return ""
	}
	d := e.knownDevice()
	bridge, why := d.Bridge, d.NoBridge
	if !d.Probed {
		bridge, why = e.findBridge()
	}
	if bridge == "" {
		e.log.Warn("A VM that is to be on the local network is hidden behind this device", "cause", why)
	}
	return bridge
}
