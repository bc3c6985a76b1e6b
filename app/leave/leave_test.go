package leave

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// told plays snapshots, a second apart, and writes down what was told when. A VM's letters: n needed, s spared, w whole, u unknown, - not there; capitals
// are of another owner.
func told(snapshots ...string) string {
	var l Leave
	var out []string
	start := time.Unix(1_000_000, 0)
	for i, snapshot := range snapshots {
		var vms []VM
		for j, c := range snapshot {
			vm := VM{ID: fmt.Sprint(j), Name: fmt.Sprint("vm", j), Owner: "a", OwnerName: "A", Lacks: 10}
			if c >= 'A' && c <= 'Z' {
				vm.Owner, c = "b", c+'a'-'A'
			}
			switch c {
			case 'n':
				vm.State = Needed
			case 's':
				vm.State = Spared
			case 'w':
				vm.State, vm.Lacks = Whole, 0
			}
			if c != '-' {
				vms = append(vms, vm)
			}
		}
		for _, n := range l.Tick(start.Add(time.Duration(i)*time.Second), vms) {
			text := fmt.Sprintf("%d:%s%s/%d", i, n.Kind, n.VMs[0].ID, n.Remaining)
			if n.Hydration && n.Kind == api.SyncLeave {
				text += "+"
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, " ")
}

func TestWhatIsToldWhen(t *testing.T) {
	for _, c := range []struct{ name, snapshots, want string }{
		{"in no time", "w n n n w", ""},
		{"as it should be", "w n n n n n n n w", "6:stay0/10 8:leave0/0"},
		{"others have it too by now", "w n n n n n n s s w", "6:stay0/10 7:leave0/0+"},
		{"nobody knows for a while", "w n n n u u u u u w", "6:stay0/10 9:leave0/0"},
		{"the engine was restarted meanwhile", "n n w", "2:leave0/0"},
		{"it was whole when the engine began", "w w w", ""},
		{"unknown, then whole", "u u w", ""},
		{"of two, one is whole", "ww nn nn nn nn nn nn wn ww", "6:stay0/10 6:stay1/10 7:leave0/10 8:leave1/0"},
		{"another owner", "w n n n n n n N N N N N N W", "6:stay0/10 12:stay0/10 13:leave0/0"},
		{"another owner, which has all of it", "w n n n n n n W", "6:stay0/10"},
		{"it was deleted", "w n n n n n n - w", "6:stay0/10"},
	} {
		if got := told(strings.Fields(c.snapshots)...); got != c.want {
			t.Errorf("%s: told %q, want %q", c.name, got, c.want)
		}
	}
}
