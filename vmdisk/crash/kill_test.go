package crash

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"tagalong.org/tagalong/vmdisk"
)

var (
	rounds   = flag.Int("crash.rounds", 200, "how many processes TestKill kills")
	killSeed = flag.Uint64("crash.kill-seed", 1, "the seed of TestKill")
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("X", err)
		}
		os.Exit(4)
	}
	// Each crash point leaves two worlds of garbage, and little else is on the heap.
	debug.SetGCPercent(400)
	goleak.VerifyTestMain(m)
}

// event is one write of a child: the lines of the diary between which it happened.
type event struct {
	off, n     int64
	stamp      uint64
	begin, end int
}

// diaryOf is what a child said.
type diaryOf struct {
	writes [len(zones)][]event
	held   vmdisk.Position
	lines  int
}

func (l *diaryOf) read(line string) error {
	l.lines++
	var w int
	var e event
	var p vmdisk.Position
	switch line[0] {
	case 'B':
		if _, err := fmt.Sscanf(line, "B %d %d %d %d", &w, &e.off, &e.n, &e.stamp); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		e.begin, e.end = l.lines, math.MaxInt
		l.writes[w] = append(l.writes[w], e)
	case 'E':
		if _, err := fmt.Sscanf(line, "E %d", &w); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		l.writes[w][len(l.writes[w])-1].end = l.lines
	case 'A':
		if _, err := fmt.Sscanf(line, "A %d %d", &p.Term, &p.Barrier); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		l.held = p
	default:
		return errors.New(line)
	}
	return nil
}

// runChild runs a child until it has said so many lines, and kills it.
func runChild(dir string, seed uint64, lines int) (*diaryOf, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childSeed, seed))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &diaryOf{}
	in := bufio.NewReader(out)
	for killed := false; ; {
		if !killed && l.lines >= lines {
			if err = cmd.Process.Kill(); err != nil {
				break
			}
			killed = true
		}
		line, rerr := in.ReadString('\n')
		if rerr != nil { // the pipe is empty, and the child dead
			break
		}
		if err = l.read(strings.TrimSuffix(line, "\n")); err != nil {
			break
		}
	}
	return l, errors.Join(err, cmd.Process.Kill(), ignoreKilled(cmd.Wait()))
}

func ignoreKilled(err error) error {
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && !e.Exited() {
		return nil
	}
	return fmt.Errorf("the child ended by itself: %w", err)
}

// owner checks what the owner has after the child's death, having had before.
func (l *diaryOf) owner(before, v values) error {
	type mark struct {
		stamp      uint64
		begin, end int
	}
	may := map[int64][]mark{}
	for i, s := range before {
		may[i] = []mark{{s, 0, 0}}
	}
	for _, ws := range l.writes {
		for _, e := range ws {
			for i := e.off / cell; i < (e.off+e.n)/cell; i++ {
				if may[i] == nil {
					may[i] = []mark{{0, 0, 0}}
				}
				may[i] = append(may[i], mark{e.stamp, e.begin, e.end})
			}
		}
	}
	for i := range v {
		if may[i] == nil {
			return fmt.Errorf("cell %d (block %d) is %d and was never written", i, i/blockCells, v[i])
		}
	}
	for i, marks := range may {
		latest := 0 // the beginning of the last write that is done
		for _, m := range marks {
			if m.end < math.MaxInt {
				latest = max(latest, m.begin)
			}
		}
		good := false
		for _, m := range marks {
			good = good || m.stamp == v[i] && m.end >= latest
		}
		if !good {
			return fmt.Errorf("cell %d (block %d) is %d, and these were written: %+v", i, i/blockCells, v[i], marks)
		}
	}
	return nil
}

// replica checks that what the replica has is a moment of the owner's order: of each writer that has its zone for itself
// the first so many writes, and none that began when one that is missing was done.
func (l *diaryOf) replica(before, v values) error {
	const alone = 2
	var low, high [alone]int
	for w := range alone {
		z := zones[w]
		have, want := part(v, z), part(before, z)
		low[w] = -1
		for k := 0; ; k++ {
			if maps.Equal(have, want) {
				if low[w] < 0 {
					low[w] = k
				}
				high[w] = k
			}
			if k == len(l.writes[w]) {
				break
			}
			e := l.writes[w][k]
			one := written{e.off, e.n, values{}}
			for i := e.off / cell; e.stamp != 0 && i < (e.off+e.n)/cell; i++ {
				one.cells[i] = e.stamp
			}
			want = want.after(one)
		}
		if low[w] < 0 {
			return fmt.Errorf("what is in zone %d never was", w)
		}
	}
	for w := range alone {
		for o := range alone {
			if low[w] == 0 || high[o] == len(l.writes[o]) {
				continue
			}
			if has, lacks := l.writes[w][low[w]-1], l.writes[o][high[o]]; has.begin > lacks.end {
				return fmt.Errorf("it has write %d of zone %d, and not the earlier write %d of zone %d", low[w], w, high[o]+1, o)
			}
		}
	}
	return nil
}

// part is what v has in z.
func part(v values, z zone) values {
	out := maps.Clone(v)
	maps.DeleteFunc(out, func(i int64, _ uint64) bool { return i < z.off/cell || i >= (z.off+z.n)/cell })
	return out
}

// TestKill kills processes that write to real files.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	d, err := vmdisk.Create(ownerDir(dir), diskID, diskSize, realOptions())
	must(t, err)
	must(t, d.Activate(1))
	must(t, d.Close())
	rep, err := vmdisk.CreateReplica(replicaDir(dir), diskID, diskSize, realOptions())
	must(t, err)
	must(t, rep.Close())
	before, complete, writes := values{}, false, 0
	r := rand.New(rand.NewPCG(*killSeed, 0))
	for round := range *rounds {
		l, err := runChild(dir, r.Uint64(), r.IntN(300))
		if err == nil {
			before, err = l.check(dir, before, complete, round)
		}
		if err != nil {
			t.Fatalf("round %d of -crash.kill-seed=%d: %v", round+1, *killSeed, err)
		}
		complete = true
		for _, ws := range l.writes {
			writes += len(ws)
		}
	}
	t.Logf("%d writes by %d processes", writes, *rounds)
}

// check opens both disks, looks, and lets the replica catch up. It returns what both contain then.
func (l *diaryOf) check(dir string, before values, complete bool, round int) (v values, err error) {
	d, err := vmdisk.Open(ownerDir(dir), realOptions())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r, err := vmdisk.Open(replicaDir(dir), realOptions())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if v, err = scan(d); err != nil {
		return nil, err
	}
	if err := l.owner(before, v); err != nil {
		return nil, err
	}
	st := r.ReplicaState()
	if st.Position.Compare(l.held) < 0 || complete && !st.Complete {
		return nil, fmt.Errorf("the replica is at %s (complete %v) and had acknowledged %s", st.Position, st.Complete, l.held)
	}
	if st.Complete {
		got, err := scan(r)
		if err != nil {
			return nil, err
		}
		if err := l.replica(before, got); err != nil {
			return nil, fmt.Errorf("the replica at %s: %w", st.Position, err)
		}
	}
	term := d.Info().Term
	if err := d.Activate(term); err != nil {
		return nil, err
	}
	if err := follow(d, r); err != nil {
		return nil, err
	}
	if round%20 == 19 {
		if err := errors.Join(d.Fence(), d.Give(term)); err != nil {
			return nil, err
		}
		return v, d.Activate(term + 1)
	}
	return v, nil
}
