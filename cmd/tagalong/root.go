package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// cli is what all verbs share.
type cli struct {
	in       io.Reader
	out      *output
	err      io.Writer
	dataFlag string
	openFlag bool
}

// run is the whole program: it returns the exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	c := &cli{in: in, out: &output{w: out}, err: errOut}
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(c.out)
	root.SetErr(errOut)
	err := root.ExecuteContext(context.Background())
	var e *api.Error
	if err != nil && !errors.As(err, &e) { // all of ours are; so this is the parser's
		err = usage(sentence(err.Error()), "See: tagalong --help")
	}
	if err == nil {
		err = c.out.broken(c.out.failed)
	}
	if err != nil {
		printError(errOut, err)
	}
	return exitCode(err)
}

func newRoot(c *cli) *cobra.Command {
	cobra.MousetrapHelpText = "" // opened from the Windows Explorer, this is a window and not a mistake
	root := &cobra.Command{
		Use:   "tagalong",
		Short: "Your desktop tags along with you",
		Long: `Tagalong runs your desktop in a virtual machine that follows you from PC to PC.

Without a verb it opens the tray. Nearly all verbs talk to the engine that runs on this
device; "engine" is that engine, and most of "disk" needs none.`,
		Example: `  tagalong engine            run the engine in this terminal
  tagalong pair              let another device join this one
  tagalong switch            bring the desktop here
  tagalong offline on        take it along on a journey
  tagalong help exit-codes   what the exit codes mean`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return c.tray(cmd) },
	}
	root.PersistentFlags().StringVar(&c.dataFlag, "data", "", "the engine's `directory` (default: $TAGALONG_DATA, or the system's place for data)")
	root.Flags().BoolVar(&c.openFlag, "window", false, "open the window too, and not only the tray")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(sentence(err.Error()), "See: "+cmd.CommandPath()+" --help")
	})
	root.AddCommand(
		newStatus(c), newSwitch(c), newVM(c), newDisk(c), newDevices(c), newPair(c), newLeave(c), newHistory(c), newEvents(c),
		newConflict(c), newResolve(c), newRestorePoints(c), newOffline(c), newVerify(c), newSync(c), newViewer(c),
		newEngine(c), newVersion(c), exitCodesTopic(),
	)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			explainCompletion(cmd)
		}
	}
	return root
}

// client reaches the engine of the data directory. The caller closes it.
func (c *cli) client() (*api.Client, error) {
	dir, err := api.DataDir(c.dataFlag)
	if err != nil {
		return nil, err
	}
	return api.NewClient(api.SocketPath(dir)), nil
}

// ask runs do with a client and a context that ends at the first interrupt.
func (c *cli) ask(cmd *cobra.Command, do func(ctx context.Context, client *api.Client) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return do(ctx, client)
}

// usage is the error of a command line that can't be obeyed.
func usage(sentence, next string) error {
	return &api.Error{Code: api.CodeUsage, Sentence: sentence, Next: next}
}

// sentence makes one of a library's error text.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(text[size:], ".") + "."
}

// noSuchVerb refuses arguments where only a verb could be.
func noSuchVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	next := "See: " + cmd.CommandPath() + " --help"
	var verbs []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			verbs = append(verbs, sub.Name())
		}
	}
	if near := nearest(args[0], verbs); near != "" {
		next = "Did you mean: " + cmd.CommandPath() + " " + near
	}
	return usage("There is no verb \""+args[0]+"\" in "+cmd.CommandPath()+".", next)
}

// group makes a verb that only has others below it.
func group(cmd *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	cmd.Args = noSuchVerb
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(verbs...)
	return cmd
}

// between wants at least low and at most high arguments.
func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return usage("Something is missing after \""+cmd.CommandPath()+"\".", "Usage: "+cmd.UseLine())
		case len(args) > high:
			return usage("There is too much after \""+cmd.CommandPath()+"\": "+strings.Join(args[high:], " "), "Usage: "+cmd.UseLine())
		}
		return nil
	}
}

// explainCompletion adds to the library's verb what ours have.
func explainCompletion(cmd *cobra.Command) {
	group(cmd)
	cmd.Example = "  source <(tagalong completion bash)"
	for _, shell := range cmd.Commands() {
		shell.Example = "  tagalong completion " + shell.Name()
	}
}
