package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tagalong.org/tagalong/app/api"
)

// pairWindow is how long a pairing window stays open.
const pairWindow = 2 * time.Minute

func newPair(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pair [CODE]",
		Short: "Let another device join, or join one",
		Long: `Without a code: show one, and wait two minutes for the other device to enter it.
With the code that another device shows: join that device.

Devices on one network find each other (mDNS). Where they don't, for instance
because the network doesn't let it through, enter with --addr one of the
addresses that the other device shows beside its code. Its port is another one
each time.

Both devices then show the same four words. If they differ, somebody is between
them: remove the device again.`,
		Example: `  tagalong pair
  tagalong pair 4821-0937
  tagalong pair 4821-0937 --addr 192.168.1.7:40123`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addr := cmd.Flags().String("addr", "", "`host:port` that the other device shows beside its code, where it isn't found by itself")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			if *addr != "" {
				return usage("An address goes with the code that the other device shows.", "Usage: tagalong pair CODE --addr HOST:PORT")
			}
			return c.pairShow(cmd, *asJSON)
		}
		return c.ask(cmd, func(ctx context.Context, client *api.Client) error {
			p, err := client.PairJoin(ctx, api.PairJoin{Code: strings.Join(args, " "), Addr: *addr})
			if err != nil {
				return err
			}
			return c.paired(p, *asJSON)
		})
	}
	return cmd
}

// pairShow opens a window, shows its code and waits for its end.
func (c *cli) pairShow(cmd *cobra.Command, asJSON bool) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	st, err := client.Status(cmd.Context())
	if err != nil {
		return err
	}
	p, err := client.PairStart(cmd.Context(), api.PairStart{Seconds: int(pairWindow.Seconds())})
	if err != nil {
		return err
	}
	if asJSON {
		if err := c.out.jsonLine(p); err != nil {
			return err
		}
	} else {
		c.out.say("The code is %s\n\nEnter it on the other device within %s, in its window or with:\n  tagalong pair %s",
			p.Code, span(pairWindow), p.Code)
		if len(p.Addrs) > 0 {
			which := ""
			if len(p.Addrs) > 1 {
				which = ", whichever of these reaches it"
			}
			c.out.say("\nIf this device isn't found there, name its address%s:", which)
			for _, addr := range p.Addrs {
				if strings.HasPrefix(addr, "[") { // which means something to shells
					addr = shellWord(addr)
				}
				c.out.say("  tagalong pair %s --addr %s", p.Code, addr)
			}
			c.out.say("")
		}
	}
	f := &follower{client: client, after: st.Seq,
		read: func(st *api.Status) (bool, error) {
			switch {
			case st.Pairing == nil:
				return false, &api.Error{Code: api.CodeCancelled, Sentence: "The pairing window was closed.", Next: "Open it again with: tagalong pair"}
			case st.Pairing.Done || st.Pairing.Error != nil:
				p = st.Pairing
				return true, nil
			default:
				return false, nil
			}
		},
		heard: func(api.Event, bool) (bool, error) { return false, nil },
		interrupted: func(ctx context.Context, _ int) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if err := client.PairCancel(ctx); err != nil {
				return err
			}
			return &api.Error{Code: api.CodeCancelled, Sentence: "The pairing window is closed."}
		},
	}
	if err := f.follow(cmd.Context()); err != nil {
		return err
	}
	return c.paired(p, asJSON)
}

// paired tells how a pairing ended.
func (c *cli) paired(p *api.Pairing, asJSON bool) error {
	if asJSON {
		if err := c.out.jsonLine(p); err != nil {
			return err
		}
	}
	if p.Error != nil {
		return p.Error
	}
	if asJSON {
		return nil
	}
	name := "the other device"
	if p.Peer != nil {
		name = p.Peer.Name
	}
	c.out.say("Paired with %s.\n\n  %s\n\nThe other device must show the same words. If it doesn't: tagalong devices remove %s",
		name, strings.Join(p.Words, "  "), shellWord(name))
	return nil
}
