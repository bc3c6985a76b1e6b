package ui

import (
	"context"

	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// openRollback reads what a rollback would lose, and asks whether to wait or to roll back. What was read is what is done: if it isn't true
// any more, the engine refuses and the person is told.
func (g *gui) openRollback(vm string) {
	body := container.NewStack(container.NewVBox(layout.NewSpacer(), prose(t("rollback.loading"), widget.MediumImportance), layout.NewSpacer()))
	var read *api.Rollback
	q := g.openQuestion(t("rollback.title", "VM", g.vmName(vm)), body, longSize, t("button.rollback-now"), false, func() {
		if read == nil {
			return
		}
		req := api.RollBackVM{VM: vm, Token: read.Token}
		g.askFor(vm, func(ctx context.Context) error { return g.client.RollBack(ctx, req) })
	})
	q.no.SetText(t("button.wait"))
	q.yes.Disable()
	var got *api.Rollback
	g.ask(askTime, func(ctx context.Context) (err error) {
		got, err = g.client.Rollback(ctx, vm)
		return err
	}, func(err *api.Error) {
		body.RemoveAll()
		if err != nil {
			body.Add(container.NewVBox(prose(err.Sentence, widget.DangerImportance), prose(err.Next, widget.MediumImportance)))
			return
		}
		read = got
		facts := rollbackFacts(got)
		loss := newInlay(factBox(facts[:1], true))
		loss.setAccent(theme.ColorNameWarning)
		body.Add(container.NewVScroll(container.New(layout.NewCustomPaddedVBoxLayout(2), loss, factBox(facts[1:], false), caption(t("rollback.text"), widget.LowImportance))))
		q.yes.Enable()
	})
}

// rollbackFacts are what a person reads before a rollback, what is lost first.
func rollbackFacts(r *api.Rollback) []fact {
	facts := []fact{
		{t("rollback.lost"), t("rollback.written", "Size", size(r.Written), "VM", r.VMName)},
		{t("rollback.now"), t("rollback.missing", "Size", size(r.Remaining))},
	}
	switch {
	case r.Running:
		facts = append(facts, fact{t("rollback.vm"), t("rollback.running")})
	case r.Suspended:
		facts = append(facts, fact{t("rollback.vm"), t("rollback.suspended")})
	}
	if names := deviceNames(r.Holders, func(api.HydrationHolder) bool { return true }); len(names) > 0 {
		facts = append(facts, fact{t("rollback.newer"), t("rollback.returns", "Devices", list(names))})
	}
	return facts
}
