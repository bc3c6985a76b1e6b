package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// noVM is said where a VM is wanted and there is none at all.
func noVM() error {
	return &api.Error{Code: api.CodeNotFound, Sentence: "There is no VM yet.",
		Next: "Make one with: tagalong vm create NAME --disk 20G"}
}

// named is a thing that people call by name, and programs by ID.
type named struct{ id, name string }

// find is the one thing that text means: an ID, a name, or a name in other case.
func find(what, text, list string, things []named) (string, error) {
	var same, folded []named
	names := make([]string, 0, len(things))
	for _, t := range things {
		switch {
		case t.id == text:
			return t.id, nil
		case t.name == text:
			same = append(same, t)
		case strings.EqualFold(t.name, text):
			folded = append(folded, t)
		}
		names = append(names, t.name)
	}
	if len(same) == 0 {
		same = folded
	}
	switch len(same) {
	case 1:
		return same[0].id, nil
	case 0:
		next := "See them all with: " + list
		if near := nearest(text, names); near != "" {
			next = fmt.Sprintf("Did you mean %q? %s", near, next)
		}
		return "", &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no %s called %q.", what, text), Next: next}
	default:
		ids := make([]string, len(same))
		for i, t := range same {
			ids[i] = t.id
		}
		return "", usage(fmt.Sprintf("More than one %s is called %q.", what, text), "Say which one by its ID: "+strings.Join(ids, ", "))
	}
}

// findVM finds the VM that the person means. Without a name it is the only one.
func findVM(st *api.Status, text string) (api.VM, error) {
	things := make([]named, len(st.VMs))
	names := make([]string, len(st.VMs))
	for i, vm := range st.VMs {
		things[i], names[i] = named{vm.ID, vm.Name}, vm.Name
	}
	switch {
	case len(st.VMs) == 0:
		return api.VM{}, noVM()
	case text == "" && len(st.VMs) == 1:
		return st.VMs[0], nil
	case text == "":
		return api.VM{}, usage("There is more than one VM.", "Name one of them: "+strings.Join(names, ", "))
	}
	id, err := find("VM", text, "tagalong vm list", things)
	if err != nil {
		return api.VM{}, err
	}
	for _, vm := range st.VMs {
		if vm.ID == id {
			return vm, nil
		}
	}
	return api.VM{}, noVM()
}

// allDevices are the devices of the fleet with this one, which an engine may leave to Status.Device.
func allDevices(st *api.Status) []api.Device {
	self := func(d api.Device) bool { return d.Self || d.ID == st.Device.ID }
	if st.Device.ID == "" || slices.ContainsFunc(st.Devices, self) {
		return st.Devices
	}
	own := st.Device
	own.Self = true
	return append([]api.Device{own}, st.Devices...)
}

// findDevice finds the device that the person means. One that was removed gives way to one that took its name, but not to its ID.
func findDevice(st *api.Status, text string) (api.Device, error) {
	devices := allDevices(st)
	present := slices.DeleteFunc(slices.Clone(devices), func(d api.Device) bool { return d.Removed && d.ID != text })
	if slices.ContainsFunc(present, func(d api.Device) bool { return d.ID == text || strings.EqualFold(d.Name, text) }) {
		devices = present
	}
	things := make([]named, len(devices))
	for i, d := range devices {
		things[i] = named{d.ID, d.Name}
	}
	id, err := find("device", text, "tagalong devices", things)
	if err != nil {
		return api.Device{}, err
	}
	for _, d := range devices {
		if d.ID == id {
			return d, nil
		}
	}
	return st.Device, nil
}

// nearest is the candidate that text most likely was meant to be, or "".
func nearest(text string, candidates []string) string {
	const longest = 64 // runes; nobody mistypes more, and the effort is quadratic
	typed := []rune(strings.ToLower(text))
	if len(typed) > longest || len(typed) == 0 {
		return ""
	}
	best, bound := "", max(1, len(typed)/3)+1
	for _, candidate := range candidates {
		c := []rune(strings.ToLower(candidate))
		if len(c) > longest {
			continue
		}
		if d := distance(typed, c); d < bound && d < max(len(c), len(typed)) {
			best, bound = candidate, d
		}
	}
	if best != "" {
		return best
	}
	for _, candidate := range candidates {
		if len(typed) > 1 && strings.HasPrefix(strings.ToLower(candidate), string(typed)) {
			return candidate
		}
	}
	return ""
}

// distance counts the letters to add, drop, change or exchange with their neighbour.
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// completer offers names from a snapshot, for the first argument and for flags. It is quick and
// silent: no engine, no names.
func (c *cli) completer(names func(*api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.complete(cmd, names), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFirst is completer for verbs that take one name.
func (c *cli) completeFirst(names func(*api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.complete(cmd, names), cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *cli) complete(cmd *cobra.Command, names func(*api.Status) []string) []string {
	client, err := c.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	out := names(st)
	for i := range out {
		out[i] = clean(out[i])
	}
	return out
}

func vmNames(st *api.Status) []string {
	var names []string
	for _, vm := range st.VMs {
		names = append(names, vm.Name)
	}
	return names
}

func deviceNames(st *api.Status) []string {
	var names []string
	for _, d := range allDevices(st) {
		names = append(names, d.Name)
	}
	return names
}

func otherDeviceNames(st *api.Status) []string {
	var names []string
	for _, d := range st.Devices {
		if !d.Self && !d.Removed {
			names = append(names, d.Name)
		}
	}
	return names
}

// registerCompletion offers values for a flag. It can only fail for a flag that isn't there, which
// the tests would show.
func registerCompletion(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag, f)
}
