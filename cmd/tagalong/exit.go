package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// exits is the one place where kinds of failure become exit codes. They are part of what scripts
// rely on: never reused, never renumbered.
var exits = []struct {
	code  api.Code
	exit  int
	means string
}{
	{api.CodeInternal, 1, "something went wrong inside Tagalong, or a disk is damaged"},
	{api.CodeUsage, 2, "the command line can't be obeyed"},
	{api.CodeNotFound, 3, "there is no VM, device, switch or file of that name"},
	{api.CodeConflict, 4, "not possible in the present state"},
	{api.CodeElsewhere, 5, "the VM runs on another device"},
	{api.CodeNoEngine, 6, "no engine answers here"},
	{api.CodeBusy, 7, "something else is under way"},
	{api.CodeNoHypervisor, 8, "no hypervisor was found here"},
	{api.CodeUnreachable, 9, "the other device isn't connected"},
	{api.CodeCancelled, 10, "cancelled, or left before it was done"},
	{api.CodeRefused, 11, "the other device said no"},
	{api.CodeSpace, 12, "the disk is full"},
	{api.CodeEngineRunning, 13, "an engine runs here already"},
	{api.CodeUnanswered, 14, "the VM's guest doesn't do what it was asked"},
	{code: api.CodeDamaged, exit: 1}, // told with the first
}

// exitCode is 0 for no error, 1 for a kind that this version doesn't know.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	code := api.AsError(err).Code
	for _, e := range exits {
		if e.code == code {
			return e.exit
		}
	}
	return 1
}

// printError writes the sentence and, indented, the next step. The cause is for reports of what
// nobody expected.
func printError(w io.Writer, err error) {
	e := api.AsError(err)
	_, _ = fmt.Fprintf(w, "tagalong: %s\n", clean(e.Sentence))
	if e.Next != "" {
		_, _ = fmt.Fprintf(w, "  %s\n", clean(e.Next))
	}
	if e.Code == api.CodeInternal && e.Cause != "" {
		_, _ = fmt.Fprintf(w, "  cause: %s\n", clean(e.Cause))
	}
}

// exitCodesTopic is a page of help, not a verb.
func exitCodesTopic() *cobra.Command {
	text := "Every verb ends with one of these:\n\n   0  it worked\n"
	for _, e := range exits {
		if e.means == "" {
			continue
		}
		text += fmt.Sprintf("  %2d  %s\n", e.exit, e.means)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text}
}
