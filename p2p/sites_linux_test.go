package p2p

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/p2p/site"
)

// newSites is two links, each a switch with two places, joined by a router that passes no multicast on: names and addrs are those
// of the four places, two of the one link first.
func newSites(t *testing.T, subnet int) (names, addrs []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("This test builds network namespaces and must run as root.")
	}
	router := fmt.Sprintf("tagsite-%d-r", os.Getpid())
	add := func(name string) {
		ip(t, "netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
		ip(t, "-n", name, "link", "set", "lo", "up")
	}
	add(router)
	if out, err := exec.Command("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1").CombinedOutput(); err != nil {
		t.Fatalf("a router can't be made here: %v: %s", err, out)
	}
	for link := range 2 {
		bridge := fmt.Sprintf("lan%d", link)
		gateway := fmt.Sprintf("10.78.%d.254", subnet+link)
		ip(t, "-n", router, "link", "add", bridge, "type", "bridge")
		ip(t, "-n", router, "addr", "add", gateway+"/24", "dev", bridge)
		ip(t, "-n", router, "link", "set", bridge, "up")
		for place := range 2 {
			name := fmt.Sprintf("tagsite-%d-%d-%d", os.Getpid(), link, place)
			addr := fmt.Sprintf("10.78.%d.%d", subnet+link, place+1)
			add(name)
			port := fmt.Sprintf("port%d%d", link, place)
			ip(t, "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", router)
			ip(t, "-n", router, "link", "set", port, "master", bridge, "up")
			ip(t, "-n", name, "addr", "add", addr+"/24", "dev", "eth0")
			ip(t, "-n", name, "link", "set", "eth0", "up")
			ip(t, "-n", name, "route", "add", "default", "via", gateway)
			names, addrs = append(names, name), append(addrs, addr)
		}
	}
	return names, addrs
}

// TestTwoLinksAreTwoSites: devices on two links joined by a router that is as fast as the links are all connected, and two sites.
func TestTwoLinksAreTwoSites(t *testing.T) {
	names, addrs := newSites(t, 1)
	dir := t.TempDir()
	var devices []*remote
	for i, name := range names {
		l := &lan{names: [2]string{name}, addrs: [2]string{addrs[i]}}
		devices = append(devices, l.startAt(t, 0, filepath.Join(dir, fmt.Sprint(i)), "/ip4/0.0.0.0/tcp/4100"))
	}
	var all []string
	for _, d := range devices {
		all = append(all, d.id)
	}
	for i, d := range devices {
		for j, o := range devices {
			if i/2 != j/2 { // multicast doesn't tell them of these
				d.tell(t, fmt.Sprintf("at %s /ip4/%s/tcp/4100", o.id, addrs[j]))
			}
		}
	}
	for _, d := range devices {
		d.tell(t, "allow "+strings.Join(all, " "))
	}
	// The real facts, told to the nodes of package site as if they went on for a while.
	look := func(d *remote) (peers []PeerStatus) {
		d.tell(t, "peers")
		if err := json.Unmarshal([]byte(strings.TrimPrefix(d.expect(t, "peers "), "peers ")), &peers); err != nil {
			t.Fatal(err)
		}
		return peers
	}
	facts := map[string][]site.Peer{}
	for limit := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		known, heard := 0, map[int]bool{}
		for i, d := range devices {
			facts[d.id] = nil
			for _, p := range look(d) {
				// On a busy computer the first heartbeats are slow: the way is as short as the shortest of several.
				if p.Connected && p.Trip > 0 && p.Trip <= site.Near {
					known++
				}
				if p.OnLink {
					if p.ID != devices[i^1].id {
						t.Fatalf("device %d has another link's device on its own: %+v", i, p)
					}
					heard[i/2] = true // whichever of the two it was; the other one is told
				}
				facts[d.id] = append(facts[d.id], site.Peer{ID: p.ID, Connected: p.Connected, OnLink: p.OnLink, Trip: p.Trip})
			}
		}
		if known == len(devices)*(len(devices)-1) && len(heard) == 2 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("what is seen: %+v", facts)
		}
	}
	nodes, records := map[string]*site.Node{}, map[string]site.Record{}
	views := map[string]site.View{}
	for _, d := range devices {
		nodes[d.id], records[d.id] = site.New(d.id, site.Record{}), site.Record{}
	}
	for now := range 20 {
		for _, d := range devices {
			views[d.id], records[d.id] = nodes[d.id].Tick(site.Input{Now: time.Duration(now) * time.Second, Peers: facts[d.id], Records: records})
		}
	}
	for i, d := range devices {
		here := views[d.id].Here
		if len(here.Members) != 2 || views[d.id].At(devices[i^1].id).ID != here.ID || here.Postmaster == "" || len(views[d.id].Sites) != 2 {
			t.Errorf("device %d is in %+v of %+v; its facts: %+v", i, here, views[d.id].Sites, facts[d.id])
		}
	}
}
