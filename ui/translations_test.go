package ui

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/assets"
)

// usedKeys are the keys that the package's code asks for, with the names of their placeholders.
func usedKeys(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string][]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.Ident)
			if !ok {
				return true
			}
			at, key := map[string]int{"t": 1, "tn": 2}[fun.Name], 0
			if fun.Name == "copyFlow" {
				key = 1
			} else if at == 0 {
				return true
			}
			lit, ok := call.Args[key].(*ast.BasicLit)
			if !ok {
				return true
			}
			var names []string
			switch fun.Name {
			case "tn":
				names = append(names, "Count")
			case "copyFlow":
				names, at = append(names, "Size"), len(call.Args)
			}
			for i := at; i < len(call.Args); i += 2 {
				if l, ok := call.Args[i].(*ast.BasicLit); ok {
					s, err := strconv.Unquote(l.Value)
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, s)
				}
			}
			s, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			used[s] = names
			return true
		})
	}
	for _, topic := range topics(t) {
		for _, key := range []string{"told." + topic, "told." + topic + ".next"} {
			used[key] = []string{"VM", "From", "To", "Other", "Sentence", "Next", "Resume", "Force", "Take", "Points"}
		}
	}
	for _, code := range findingCodes(t) {
		names := []string{"VM", "From", "To", "Sentence", "Next", "Points"}
		if used["finding."+code] = names; code != "firmware-other" && code != "unknown" { // about which there is nothing to do
			used["finding."+code+".next"] = names
		}
	}
	if len(used) < 50 {
		t.Fatalf("found only %d keys", len(used))
	}
	return used
}

// findingCodes are the findings before a switch that have words of their own, variants too. A hash that differs (config) is found in a switch only.
func findingCodes(t *testing.T) []string {
	t.Helper()
	src, err := os.ReadFile("../app/preflight/check.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := []string{"firmware-other", "memory-large"}
	for _, m := range regexp.MustCompile(`Code = "([^"]+)"`).FindAllStringSubmatch(string(src), -1) {
		if m[1] != "config" {
			codes = append(codes, m[1])
		}
	}
	if len(codes) < 10 {
		t.Fatalf("found only %v", codes)
	}
	return codes
}

// topics are what the engine can give an error as its topic.
func topics(t *testing.T) []string {
	t.Helper()
	src, err := os.ReadFile("../app/api/topic.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`Topic = "([^"]+)"`).FindAllStringSubmatch(string(src), -1) {
		names = append(names, m[1])
	}
	if len(names) < 30 {
		t.Fatalf("found only %v", names)
	}
	return names
}

// What an error tells of is read in the window's words: with the names that it has, and without a command where there is a button.
func TestTopicsAreTold(t *testing.T) {
	sw := &api.Switch{VMName: "Work", FromName: "Laptop", ToName: "Desk"}
	for _, topic := range topics(t) {
		e := &api.Error{Sentence: "What the engine says.", Next: "What the engine advises.", Topic: api.Topic(topic), Other: "Attic"}
		sw.Error = e
		for _, m := range []*message{told(e, e.Topic, "Work", "Laptop", "Desk"), switchTold(sw)} {
			text := m.Title + " " + m.Text
			if strings.Contains(text, "told.") || strings.Contains(text, "no value") || m.Title == "" || m.Text == "" || strings.Contains(text, "tagalong vm ") {
				t.Errorf("%s reads %q", topic, text)
			}
		}
	}
	newer := &api.Error{Sentence: "What a newer engine says.", Next: "Do it.", Topic: "something-new"}
	if m := told(newer, newer.Topic, "Work", "", ""); m.Title != newer.Sentence || m.Text != newer.Next {
		t.Errorf("of a newer engine: %+v", m)
	}
}

var placeholder = regexp.MustCompile(`{{\.(\w+)}}`)

// Every language has every text that is used, no other, and no placeholder that the code doesn't fill.
func TestTranslationsAreComplete(t *testing.T) {
	used := usedKeys(t)
	files, err := fs.Glob(assets.Translations, "translations/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		raw, err := assets.Translations.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var texts map[string]any
		if err := json.Unmarshal(raw, &texts); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, key := range slices.Sorted(maps.Keys(used)) {
			text, ok := texts[key]
			if !ok {
				t.Errorf("%s lacks %s", file, key)
				continue
			}
			for _, m := range placeholder.FindAllStringSubmatch(fmt.Sprint(text), -1) {
				if !slices.Contains(used[key], m[1]) {
					t.Errorf("%s: %s has a placeholder %s that nobody fills", file, key, m[1])
				}
			}
		}
		for key := range texts {
			if _, ok := used[key]; !ok {
				t.Errorf("%s has %s, which nobody asks for", file, key)
			}
		}
	}
}

// Every warning that the engine knows has a text of the window's own, so that it is read in the person's language.
func TestWarningsAreTranslated(t *testing.T) {
	src, err := os.ReadFile("../app/api/conflict.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`WarningCode = "([^"]+)"`).FindAllStringSubmatch(string(src), -1)
	if len(codes) < 10 {
		t.Fatalf("found only %v", codes)
	}
	x := lossy(testNow)
	const english = "What the engine wrote."
	for _, c := range codes {
		switch text := warningText(&x, api.Warning{Code: api.WarningCode(c[1]), Text: english}); {
		case text == english, strings.HasPrefix(text, "warn."), strings.Contains(text, "no value"):
			t.Errorf("%s reads %q", c[1], text)
		}
	}
	x.Better = nil
	for _, code := range []api.WarningCode{api.WarnBetter, "of-a-newer-engine"} {
		if text := warningText(&x, api.Warning{Code: code, Text: english}); text != english {
			t.Errorf("%s reads %q", code, text)
		}
	}
}
