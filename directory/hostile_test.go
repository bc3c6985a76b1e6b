package directory

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func sortedStrings[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// forge signs what an honest device never would.
func forge(name string, r Record) Record {
	_, k := key(name)
	r.Sig = ed25519.Sign(k, r.message())
	return r
}

func forgeTransfer(name string, tr Transfer) Record {
	value, _ := encodeValue(tr)
	return forge(name, Record{Key: transferKey(tr.VM, tr.Term), Version: transferVersion(value), Writer: id(name), Value: value})
}

func forgeVM(name string, vm VM, n uint64) Record {
	value, _ := encodeValue(vm)
	return forge(name, Record{Key: "vm/" + vm.ID, Version: vm.Term<<32 | n, Writer: id(name), Value: value})
}

// TestHostileRecords: a member of the fleet that lies gets nothing stored.
func TestHostileRecords(t *testing.T) {
	a, b := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil")
	create(t, a, "v")
	_, err := a.Give("v", 2, id("b"), "t", Position{1, 3}, KindSwitch)
	must(t, err)
	must(t, a.PutDevice(Device{Name: "a"}))
	meet(t, a, b)
	must(t, b.PutVM(VM{ID: "v", Name: "Work"}))
	chain, head := b.Chain("v"), b.Chain("v")[1].Hash()
	before := shared(b)
	device := a.Get([]string{"device/" + id("a")})[0]
	vm := b.Get([]string{"vm/v"})[0]
	change := func(r Record, f func(*Record)) Record {
		f(&r)
		return r
	}
	mustValue := func(v any) []byte {
		x, err := json.Marshal(v)
		must(t, err)
		return x
	}
	for name, c := range map[string]struct {
		r    Record
		want error
	}{
		"nothing":         {Record{}, ErrInvalid},
		"version 0":       {change(device, func(r *Record) { r.Version = 0 }), ErrInvalid},
		"long key":        {change(device, func(r *Record) { r.Key = "device/" + strings.Repeat("x", MaxKey) }), ErrInvalid},
		"long value":      {change(device, func(r *Record) { r.Value = make([]byte, MaxValue+1) }), ErrInvalid},
		"long signature":  {change(device, func(r *Record) { r.Sig = make([]byte, MaxSig+1) }), ErrInvalid},
		"local":           {change(device, func(r *Record) { r.Key = "local/kv/x" }), ErrInvalid},
		"meta":            {change(device, func(r *Record) { r.Key = formatKey }), ErrInvalid},
		"no kind":         {change(device, func(r *Record) { r.Key = "device" }), ErrInvalid},
		"higher version":  {change(device, func(r *Record) { r.Version = 99 }), ErrSignature},
		"other's device":  {change(device, func(r *Record) { r.Version, r.Writer = 99, id("evil") }), ErrInvalid},
		"a stranger's":    {forge("stranger", Record{Key: "device/" + id("stranger"), Version: 1, Writer: id("stranger"), Value: mustValue(versioned[Device]{1, Device{ID: id("stranger")}})}), ErrUnknownDevice},
		"newer schema":    {forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: mustValue(versioned[Device]{2, Device{ID: id("evil")}})}), ErrVersion},
		"no JSON":         {forge("evil", Record{Key: "device/" + id("evil"), Version: 1, Writer: id("evil"), Value: []byte("{")}), ErrInvalid},
		"same version":    {forgeVM("b", VM{ID: "v", Name: "Evil", Term: 2, Owner: id("b"), Head: head}, vm.Version&0xffff), ErrInvalid},
		"not the owner":   {forgeVM("evil", VM{ID: "v", Term: 2, Owner: id("evil"), Head: head}, 9), ErrNotOwner},
		"for the owner":   {forgeVM("evil", VM{ID: "v", Term: 2, Owner: id("b"), Head: head}, 9), ErrNotOwner},
		"a later term":    {forgeVM("evil", VM{ID: "v", Term: 3, Owner: id("evil"), Head: head}, 9), ErrGap},
		"wrong head":      {forgeVM("b", VM{ID: "v", Term: 2, Owner: id("b")}, 9), ErrFork},
		"wrong term":      {change(forgeVM("b", VM{ID: "v", Term: 2, Owner: id("b"), Head: head}, 9), func(r *Record) { r.Version += 1 << 32 }), ErrInvalid},
		"stolen":          {forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: id("evil"), To: id("a"), Prev: head, Kind: KindSwitch}), ErrNotOwner},
		"signed by other": {change(forgeTransfer("evil", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindSwitch}), func(r *Record) { r.Writer = id("b") }), ErrSignature},
		"of another past": {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: chain[0].Hash(), Kind: KindSwitch}), ErrNotOwner},
		"a leap":          {forgeTransfer("b", Transfer{VM: "v", Term: 4, From: id("b"), To: id("evil"), Prev: head, Kind: KindSwitch}), ErrChain},
		"back to another": {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindReturned}), ErrChain},
		"to itself":       {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("b"), Prev: head, Kind: KindSwitch}), ErrInvalid},
		"created again":   {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: KindCreated}), ErrInvalid},
		"unknown kind":    {forgeTransfer("b", Transfer{VM: "v", Term: 3, From: id("b"), To: id("evil"), Prev: head, Kind: "stolen"}), ErrInvalid},
		"slash in a name": {forgeTransfer("evil", Transfer{VM: "v/w", Term: 1, To: id("evil"), Kind: KindCreated}), ErrInvalid},
		"false fork":      {Record{Key: "fork/v/0000000001/00", Version: 1, Writer: id("evil"), Value: []byte("{}")}, ErrInvalid},
	} {
		if err := b.Apply(id("evil"), c.r); err == nil || !isErr(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if !maps.Equal(shared(b), before) {
			t.Fatalf("%s was stored", name)
		}
	}
	wantErr(t, b.Apply("nobody", device), ErrUnknownDevice)
	// An older value is nothing new, and no error.
	must(t, b.Apply(id("evil"), forgeVM("a", VM{ID: "v", Term: 1, Owner: id("a"), Head: chain[0].Hash()}, 7)))
	if !maps.Equal(shared(b), before) {
		t.Fatal("an older term replaced a newer one")
	}
}

// TestHostileHistories: forced transfers against the rules, signed by a member of the fleet who may sign others, get
// nothing stored and change no head.
func TestHostileHistories(t *testing.T) {
	a, b := fresh(t, "a", "b", "evil"), fresh(t, "b", "a", "evil")
	create(t, a, "v")
	create(t, a, "w")
	_, err := a.Give("v", 2, id("b"), "t", Position{1, 9}, KindSwitch)
	must(t, err)
	all(t, a, b)
	fork := head(b)
	taken, err := a.TakeOver("v", fork, Position{1, 9})
	must(t, err)
	all(t, a, b)
	kept, err := b.Keep("v", fork, Position{2, 3})
	must(t, err)
	all(t, a, b)
	other, first := b.Chain("w")[0].Hash(), b.Chain("v")[0].Hash()
	tree := b.trees["v"]
	// right is a transfer with the term that it should have.
	right := func(x Transfer) Record {
		x.VM, x.Over = "v", sortedHashes(x.Over)
		if p := tree.nodes[x.Prev]; p != nil {
			known := x
			known.Over = nil
			for _, h := range x.Over {
				if tree.nodes[h] != nil {
					known.Over = append(known.Over, h)
				}
			}
			x.Term = tree.forcedTerm(p, known)
		}
		x.Term = max(x.Term, 2)
		return forgeTransfer("evil", x)
	}
	wrong := func(r Record, term uint64) Record {
		x, err := decodeValue[Transfer](r.Value)
		must(t, err)
		x.Term = term
		return forgeTransfer("evil", x)
	}
	evil, sides := id("evil"), []Hash{taken.Hash()}
	takes := Transfer{Kind: KindTakeover, From: id("b"), To: evil, Prev: fork, Position: Position{2, 1}}
	many := make([]Hash, maxOver+1)
	for i := range many {
		many[i] = Hash{byte(i + 1)}
	}
	before, heads := shared(b), fmt.Sprint(hashes(b.Heads("v")))
	for name, c := range map[string]struct {
		r    Record
		want error
	}{
		"the next term":            {wrong(right(takes), 3), ErrChain},
		"a term too high":          {wrong(right(takes), 1<<30), ErrChain},
		"the last term":            {wrong(right(takes), maxTerm), ErrChain},
		"no term left":             {wrong(right(takes), maxTerm+1), ErrInvalid},
		"an older term":            {wrong(right(takes), 1), ErrChain},
		"from another":             {right(Transfer{Kind: KindTakeover, From: id("a"), To: evil, Prev: fork}), ErrNotOwner},
		"for another":              {right(Transfer{Kind: KindTakeover, From: id("b"), To: id("a"), Prev: fork}), ErrNotOwner},
		"of another VM":            {right(Transfer{Kind: KindTakeover, From: id("a"), To: evil, Prev: other}), ErrChain},
		"of an unknown past":       {right(Transfer{Kind: KindTakeover, From: id("a"), To: evil, Prev: Hash{7}}), ErrGap},
		"at an unknown position":   {right(Transfer{Kind: KindTakeover, From: id("b"), To: evil, Prev: fork, Position: Position{77, 1}}), ErrGap},
		"above an unknown":         {right(Transfer{Kind: KindTakeover, From: id("b"), To: evil, Prev: fork, Above: Hash{7}}), ErrGap},
		"a takeover that chooses":  {right(Transfer{Kind: KindTakeover, From: id("b"), To: evil, Prev: fork, Over: sides}), ErrInvalid},
		"a takeover that says how": {right(Transfer{Kind: KindTakeover, From: id("b"), To: evil, Prev: fork, How: "both"}), ErrInvalid},
		"a switch above":           {forgeTransfer("evil", Transfer{VM: "v", Kind: KindSwitch, Term: 3, From: evil, To: id("a"), Prev: fork, Above: fork}), ErrInvalid},
		"kept of a leaf":           {right(Transfer{Kind: KindKept, From: id("a"), To: evil, Prev: taken.Hash()}), ErrGap},
		"kept from another":        {right(Transfer{Kind: KindKept, From: id("a"), To: evil, Prev: fork}), ErrNotOwner},
		"chosen without a side":    {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: sides}), ErrNotOwner},
		"chosen for itself":        {right(Transfer{Kind: KindResolved, From: evil, To: evil, Prev: kept.Hash(), Over: sides}), ErrNotOwner},
		"chosen over nothing":      {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash()}), ErrInvalid},
		"chosen over too many":     {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: many}), ErrInvalid},
		"chosen over unknown":      {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: []Hash{{7}}}), ErrGap},
		"chosen over another VM's": {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: []Hash{other}}), ErrChain},
		"chosen over its past":     {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: []Hash{first}}), ErrChain},
		"chosen over its future":   {right(Transfer{Kind: KindResolved, From: evil, To: id("a"), Prev: first, Over: []Hash{fork}}), ErrChain},
		"chosen over itself":       {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: []Hash{kept.Hash()}}), ErrInvalid},
		"chosen over one twice":    {forgeTransfer("evil", Transfer{VM: "v", Term: 9, Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: append(slices.Clone(sides), sides...)}), ErrInvalid},
		"chosen at length":         {right(Transfer{Kind: KindResolved, From: evil, To: id("b"), Prev: kept.Hash(), Over: sides, How: strings.Repeat("x", maxHow+1)}), ErrInvalid},
		"a switch of a leaf":       {forgeTransfer("evil", Transfer{VM: "v", Kind: KindSwitch, Term: taken.Term + 1, From: evil, To: id("b"), Prev: taken.Hash()}), ErrNotOwner},
		"returned to a taker":      {right(Transfer{Kind: KindReturned, From: id("a"), To: id("b"), Prev: taken.Hash()}), ErrNotOwner},
		"a record of that branch":  {forgeVM("evil", VM{ID: "v", Term: taken.Term, Owner: evil, Head: taken.Hash()}, 1), ErrNotOwner},
	} {
		if err := b.Apply(evil, c.r); !isErr(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if !maps.Equal(shared(b), before) || fmt.Sprint(hashes(b.Heads("v"))) != heads {
			t.Fatalf("%s was stored", name)
		}
	}
	// Under another branch's key a true record isn't that branch's.
	r := forgeVM("a", VM{ID: "v", Term: taken.Term, Owner: id("a"), Head: taken.Hash()}, 1)
	for _, key := range []string{"vm/v", "vm/v/0000000007", "vm/v/7", "vm/v/", "vm/v/x"} {
		r.Key = key
		if err := b.Apply(id("a"), forge("a", r)); !isErr(err, ErrInvalid) {
			t.Errorf("under %s: %v", key, err)
		}
	}
}

// TestHugeValues: values that are large in every way are refused, or harmless, and cost no more than their bytes.
func TestHugeValues(t *testing.T) {
	b := fresh(t, "b", "evil")
	c := forgeTransfer("evil", Transfer{VM: "v", Term: 1, To: id("evil"), Kind: KindCreated})
	must(t, b.Apply(id("evil"), c))
	head := b.Chain("v")[0].Hash()
	fields := func(n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, `"f%d":0,`, i)
		}
		return s.String()
	}
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	own := `"id":"` + id("evil") + `"`
	member := `"device":"` + id("b") + `","by":"` + id("evil") + `","gen":1`
	for name, c := range map[string]struct {
		key, body string
		version   uint64
		want      error
	}{
		"a million fields":      {"device/" + id("evil"), fields(1_000_000) + own, 1, ErrInvalid},
		"twenty thousand":       {"device/" + id("evil"), fields(20_000) + own, 1, nil},
		"deep":                  {"device/" + id("evil"), `"x":` + deep + `,` + own, 2, ErrInvalid},
		"deep spec":             {"vm/v", `"id":"v","term":1,"owner":"` + id("evil") + `","head":"` + head.String() + `","spec":` + deep, 1<<32 | 1, ErrInvalid},
		"a thousand addresses":  {"device/" + id("evil"), `"addrs":[` + strings.Repeat(`"",`, 999) + `""],` + own, 3, ErrInvalid},
		"a huge number":         {"vm/v", `"id":"v","term":1e400,"owner":"` + id("evil") + `"`, 1<<32 | 1, ErrInvalid},
		"a negative term":       {"vm/v", `"id":"v","term":-1,"owner":"` + id("evil") + `"`, 1<<32 | 1, ErrInvalid},
		"a negative disk":       {"vm/v", `"id":"v","term":1,"diskBytes":-1,"owner":"` + id("evil") + `","head":"` + head.String() + `"`, 1<<32 | 1, ErrInvalid},
		"a long member":         {memberKey(id("b"), id("evil")), fields(400) + member, 4, ErrInvalid},
		"a generation too high": {memberKey(id("b"), id("evil")), `"device":"` + id("b") + `","by":"` + id("evil") + `","gen":18446744073709551615`, 1, ErrInvalid},
		"a future generation":   {memberKey(id("x"), id("evil")), `"device":"` + id("x") + `","by":"` + id("evil") + `","gen":1048577`, 1048577 << 2, ErrFuture},
		"a long note":           {noteKey("v", 1), fields(300) + `"vm":"v","term":1`, 1, ErrInvalid},
		"a short hash":          {"vm/v", `"id":"v","term":1,"owner":"` + id("evil") + `","head":"00"`, 1<<32 | 1, ErrInvalid},
	} {
		r := forge("evil", Record{Key: c.key, Version: c.version, Writer: id("evil"), Value: []byte(`{"schema":1,"body":{` + c.body + `}}`)})
		err := b.Apply(id("evil"), r)
		if c.want == nil && err != nil || c.want != nil && !isErr(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func isErr(err, want error) bool {
	if err == nil {
		return false
	}
	for _, e := range []error{ErrFuture, ErrInvalid, ErrSignature, ErrUnknownDevice, ErrVersion, ErrNotOwner, ErrGap, ErrFork, ErrChain} {
		if e == want {
			return strings.Contains(err.Error(), e.Error())
		}
	}
	return false
}
