package ui

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/test"

	"tagalong.org/tagalong/app/api"
)

func syncNews(kind api.SyncKind, change func(*api.SyncNews)) *api.SyncNews {
	n := &api.SyncNews{Kind: kind, Device: "L", DeviceName: "Laptop", VMs: []api.SyncVM{{ID: "w", Name: "Work"}}, Remaining: 3 * gib, Rate: 10 * mib, ETA: 5*time.Minute + 7*time.Second}
	if change != nil {
		change(n)
	}
	return n
}

func TestSyncNotices(t *testing.T) {
	two := func(n *api.SyncNews) { n.VMs = append(n.VMs, api.SyncVM{ID: "p", Name: "Play"}) }
	here := func(n *api.SyncNews) { n.Hydration, n.From = true, []string{"Desk", "Attic"} }
	for _, c := range []struct {
		n    *api.SyncNews
		want note
	}{
		{syncNews(api.SyncBegun, nil), note{"Laptop is getting Work", "3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncBegun, func(n *api.SyncNews) { n.Self, n.ETA = true, 0 }), note{"This device is getting Work", "3 GiB to go"}},
		{syncNews(api.SyncBegun, two), note{"Laptop is getting Work and Play", "3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncHalf, func(n *api.SyncNews) {
			for range 4 {
				two(n)
			}
		}), note{"Half-way: Laptop is getting Work, Play and 3 more", "3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncBehind, nil), note{"Laptop can't keep up with Work", "It is 3 GiB behind, and goes on catching up."}},
		{syncNews(api.SyncDone, func(n *api.SyncNews) { n.Remaining = 0 }), note{"Laptop has all of Work", ""}},
		{syncNews(api.SyncDone, nil), note{"Laptop has all of Work", "What was written since follows with the next push."}},
		{syncNews(api.SyncDone, func(n *api.SyncNews) { n.Remaining, n.Lag = 0, true }), note{"Laptop has caught up with Work", ""}},
		{syncNews(api.SyncBegun, here), note{"Work runs here, and the rest of it follows", "Leave Desk and Attic on until then: 3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncBegun, func(n *api.SyncNews) { here(n); two(n); n.From = nil }), note{"Work and Play run here, and the rest of them follows", "3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncHalf, here), note{"Half-way: the rest of Work is coming here", "3 GiB to go, about 6 minutes left"}},
		{syncNews(api.SyncDone, here), note{"All of Work is here", "Desk and Attic can be switched off now."}},
		{syncNews(api.SyncWaits, here), note{"Work waits for Desk and Attic", "What it needs is nowhere else. Switch on or connect: Desk and Attic"}},
		{syncNews(api.SyncWaits, func(n *api.SyncNews) { n.Hydration = true }), note{"Work waits", "What it needs is on no device that can be reached."}},
		{syncNews(api.SyncStay, nil), note{"Leave this device on: Laptop still needs it for Work", "3 GiB to go, about 6 minutes left. You are told when it may be switched off."}},
		{syncNews(api.SyncStay, func(n *api.SyncNews) { n.Remaining = 0 }), note{"Leave this device on: Laptop still needs it for Work", "You are told when it may be switched off."}},
		{syncNews(api.SyncLeave, func(n *api.SyncNews) { n.Remaining = 0 }), note{"Laptop has all of Work now", "This device isn't needed for it any more, and may be switched off."}},
		{syncNews(api.SyncLeave, nil), note{"Laptop has all of Work now", "But this device is still needed for other VMs: leave it on."}},
		{syncNews(api.SyncLeave, func(n *api.SyncNews) { n.Remaining, n.Hydration = 0, true }), note{"Laptop has the rest of Work from other devices too", "This device isn't needed for it any more, and may be switched off."}},
	} {
		if got, ok := syncNote(c.n); !ok || got != c.want {
			t.Errorf("%+v reads %+v, want %+v", c.n, got, c.want)
		}
	}
	if got, ok := syncNote(syncNews("of-a-newer-engine", nil)); ok {
		t.Errorf("what isn't known reads %+v", got)
	}
}

// Who looks at the window isn't told what it shows.
func TestNoSyncNoticeWhileLooking(t *testing.T) {
	b := newBench(t)
	b.tray = newTray(&fakeHost{}, b.do, b.onMain, b.gui.now)
	hears := func(kind api.SyncKind, want *fyne.Notification) {
		t.Helper()
		test.AssertNotificationSent(t, want, func() {
			b.hear(news{Link: linkUp, Sync: syncNews(kind, nil)})
			b.work.Wait()
		})
	}
	hears(api.SyncBehind, &fyne.Notification{Title: "Laptop can't keep up with Work", Content: "It is 3 GiB behind, and goes on catching up."})
	b.look(true)
	hears(api.SyncHalf, nil)
	b.closeWindow()
	hears(api.SyncHalf, &fyne.Notification{Title: "Half-way: Laptop is getting Work", Content: "3 GiB to go, about 6 minutes left"})
	hears("of-a-newer-engine", nil)
	b.tray.close()
}

// forgetful is an engine that cuts off every watch after one event, and notes from where it is to go on.
type forgetful struct {
	*fakeEngine
	after []uint64
}

func (c *forgetful) Watch(_ context.Context, after uint64) (<-chan api.Event, error) {
	c.after = append(c.after, after)
	ch := make(chan api.Event, 1)
	ch <- api.Event{Seq: after + 1, Kind: "sync.begun", Sync: syncNews(api.SyncBegun, nil)}
	close(ch)
	return ch, nil
}

// What is worth a notification is told at once and once, however often the watch is cut off and the status read meanwhile.
func TestFollowTellsSyncNewsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c := &forgetful{fakeEngine: newFakeEngine(sample(testNow))}
		told := 0
		newFollower(c, nil, slog.New(slog.DiscardHandler), func(n news) {
			if n.Sync != nil {
				told++
				c.say(func(st *api.Status) { st.Seq += 5 }) // the status is ahead of what was heard
			}
		}).Run(ctx)
		if told < len(c.after)-1 || told > len(c.after) || told < 5 { // the last may come when nobody follows any more
			t.Errorf("told %d times in %d watches", told, len(c.after))
		}
		for i, after := range c.after {
			if after != c.after[0]+uint64(i) {
				t.Fatalf("watched after %d", c.after)
			}
		}
	})
}
