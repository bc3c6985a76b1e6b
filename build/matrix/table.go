//go:build linux

package matrix

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// tableFile is where the table of the failure matrix stands: with the switch that it is about.
const tableFile = "../../app/switching/doc.go"

// none is what the table has where there is nothing to befall.
const none = "-"

// readTable reads what each cell must come to, as the comment in tableFile says it: a line of phases, and one for each fault; once for a VM that runs,
// and once for one that is suspended for its way.
func readTable(file string) (map[Cell]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var columns []Phase
	table := map[Cell]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(strings.TrimPrefix(line, "//"))
		switch {
		case len(words) == len(phases) && words[0] == string(phases[0]), len(words) == len(carried) && words[0] == string(carried[0]):
			columns = nil
			for _, w := range words {
				columns = append(columns, Phase(w))
			}
		case columns != nil && len(words) == len(columns)+1 && slices.Contains(faults, Fault(words[0])):
			for i, w := range words[1:] {
				table[Cell{Fault(words[0]), columns[i]}] = w
			}
		}
	}
	return table, whole(table)
}

// whole says what a table lacks, or has too much.
func whole(table map[Cell]string) error {
	var errs []error
	look := func(phases []Phase, faults []Fault) {
		for _, f := range faults {
			for _, p := range phases {
				c := Cell{f, p}
				if w := table[c]; w == "" || (w == none) == c.there() {
					errs = append(errs, fmt.Errorf("the table has %q for %v", w, c))
				}
			}
		}
	}
	look(phases, faults)
	look(carried, whileCarried)
	return errors.Join(errs...)
}
