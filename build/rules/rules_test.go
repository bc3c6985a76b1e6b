package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "tagalong.org/tagalong"

// pkg is one folder of Go files, as its sources say; build tags are ignored, so that rules hold on every system.
type pkg struct {
	dir     string              // slash-separated, below the root
	comment bool                // some non-test file has a package comment
	imports map[string][]string // import path -> files that have it (tests left out)
	tests   map[string][]string // the same of test files
	long    map[string]int      // non-test files over the limit
}

// maxLines is where a file is probably two ideas.
const maxLines = 600

func tree(t *testing.T) map[string]*pkg {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]*pkg{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		p := pkgs[dir]
		if p == nil {
			p = &pkg{dir: dir, imports: map[string][]string{}, tests: map[string][]string{}, long: map[string]int{}}
			pkgs[dir] = p
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		p.add(file, name, source)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 10 {
		t.Fatalf("only %d packages found: the rules would hold of nothing", len(pkgs))
	}
	return pkgs
}

func (p *pkg) add(file *ast.File, name string, source []byte) {
	test := strings.HasSuffix(name, "_test.go")
	if !test {
		p.comment = p.comment || file.Doc != nil && len(file.Doc.Text()) > 80
		if n := strings.Count(string(source), "\n"); n > maxLines {
			p.long[name] = n
		}
	}
	into := p.imports
	if test {
		into = p.tests
	}
	for _, i := range file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			into[path] = append(into[path], name)
		}
	}
}

// top is a package's top-level folder: "p2p" of "p2p/mirror".
func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// mayImport is the whole of the rules between our own packages; the reasons stand in ARCHITECTURE.md.
func mayImport(from, to string) bool {
	fromTop, toTop := top(from), top(to)
	switch {
	case from == "build/bench":
		// It measures the disk itself, in the state that no command brings about (three peers that only count), and directories with
		// more in them than a fleet would write in an hour, over streams whose bytes it counts; and it mirrors, compares, pushes and hydrates a disk without an
		// engine around it, between the lab's hosts, for a guest too, which goes first as in the engine. Stock QEMU is told what to do over its own socket.
		return to == "build/guest/console" || to == "build/story" || to == "app/api" || to == "app/hypervisor/qmp" || to == "app/holders" || to == "app/hydrating" || to == "p2p/fetch" || to == "build/lab" || to == "app/diskpush" || to == "app/diskcompare" || to == "p2p/compare" || to == "app/courtesy" || to == "app/blockindex" || to == "app/postal" || to == "p2p/push" || to == "p2p/replica" || toTop == "vmdisk" || to == "app/disknbd" || to == "app/diskmirror" || to == "app/second" || to == "p2p" || to == "p2p/mirror" || to == "directory" || to == "p2p/exchange" || to == "app/direxchange"
	case fromTop == "build": // scripts, test hosts and end-to-end tests stand outside of the product
		return toTop == "build" || to == "app/api"
	case toTop == "build":
		return false
	case fromTop == "cmd":
		return toTop == "app" || toTop == "ui" || toTop == "cmd"
	case fromTop == "ui":
		return to == "app/api" || toTop == "assets" || toTop == "ui"
	case fromTop == "app":
		if from == "app/api" || strings.HasPrefix(from, "app/hypervisor") {
			return toTop == "app" && to != "app"
		}
		return toTop == "app" || toTop == "p2p" || toTop == "directory" || toTop == "vmdisk"
	case fromTop == "p2p" || fromTop == "directory" || fromTop == "vmdisk":
		return fromTop == toTop
	default:
		return false
	}
}

func TestWhoImportsWhom(t *testing.T) {
	for _, p := range tree(t) {
		for _, group := range []map[string][]string{p.imports, p.tests} {
			for path, files := range group {
				if to, ours := strings.CutPrefix(path, module+"/"); ours && !mayImport(p.dir, to) {
					t.Errorf("%s must not import %s (in %s)", p.dir, to, strings.Join(files, ", "))
				}
				if strings.HasPrefix(path, "fyne.io/") && top(p.dir) != "ui" && top(p.dir) != "cmd" && top(p.dir) != "assets" {
					t.Errorf("%s must not know Fyne: only ui and cmd do (in %s)", p.dir, strings.Join(files, ", "))
				}
			}
		}
	}
}

// TestTheRulesCanFail keeps mayImport from allowing all.
func TestTheRulesCanFail(t *testing.T) {
	for _, pair := range [][2]string{
		{"ui", "p2p"}, {"ui", "app"}, {"p2p/mirror", "vmdisk"}, {"vmdisk/nbd", "p2p"}, {"directory", "p2p"},
		{"p2p", "app/api"}, {"app/api", "app"}, {"app/hypervisor/qemu", "vmdisk"}, {"vmdisk", "build/lab"},
		{"build/demo", "vmdisk"}, {"build/bench", "app"}, {"cmd/tagalong", "vmdisk"},
	} {
		if mayImport(pair[0], pair[1]) {
			t.Errorf("%s may import %s", pair[0], pair[1])
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range tree(t) {
		if len(p.imports) > 0 && !p.comment {
			t.Errorf("%s has no package comment that deserves the name", p.dir)
		}
	}
}

func TestFilesAreOneIdea(t *testing.T) {
	for _, p := range tree(t) {
		for name, lines := range p.long {
			t.Errorf("%s/%s has %d lines (%d at most)", p.dir, name, lines, maxLines)
		}
	}
}

func TestTopLevelNames(t *testing.T) {
	allowed := map[string]bool{"cmd": true, "ui": true, "app": true, "directory": true, "p2p": true, "vmdisk": true, "assets": true, "build": true}
	var strange []string
	for dir := range tree(t) {
		if !allowed[top(dir)] {
			strange = append(strange, dir)
		}
	}
	sort.Strings(strange)
	if len(strange) > 0 {
		t.Errorf("folders that the design doesn't name: %s", strings.Join(strange, ", "))
	}
}
