package directory

import (
	"fmt"
	"testing"
)

// commits notes the largest commit.
type commits struct {
	Store
	most int
}

func (s *commits) Commit(entries map[string][]byte) error {
	s.most = max(s.most, len(entries))
	return s.Store.Commit(entries)
}

// TestForgetLongHistory: more records than fit one commit, and a crash on the way leaves a history that loads.
func TestForgetLongHistory(t *testing.T) {
	mem := &memory{m: map[string][]byte{}}
	a := open(t, mem, "a", "b")
	create(t, a, "v")
	head := a.Chain("v")[0]
	for i := range forgetBatch + 100 {
		from, to := "a", "b"
		if i%2 == 1 {
			from, to = to, from
		}
		r := forgeTransfer(from, Transfer{VM: "v", Term: head.Term + 1, From: id(from), To: id(to), Attempt: fmt.Sprint(i), Prev: head.Hash(), Kind: KindSwitch})
		var err error
		head, err = readTransfer(r)
		must(t, err)
		must(t, a.AppendTransfer(head))
	}
	s := &commits{Store: mem}
	a.store = s
	left := 1 // commits that succeed
	mem.fail = func() (bool, error) {
		if left--; left < 0 {
			return false, fmt.Errorf("broken")
		}
		return false, nil
	}
	wantErr(t, a.ForgetVM("v"), ErrUnsure)
	mem.fail = nil
	a = open(t, mem, "a")
	if n := len(a.History("v")); n == 0 || n > 200 {
		t.Fatalf("%d transfers are left", n)
	}
	a.store = s
	must(t, a.ForgetVM("v"))
	if len(a.History("v")) != 0 || len(open(t, mem, "a").History("v")) != 0 || s.most > forgetBatch {
		t.Fatalf("%d are left, %d in one commit", len(a.History("v")), s.most)
	}
}
