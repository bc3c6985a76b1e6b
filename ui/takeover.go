package ui

import (
	"context"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// takeDialog tells what a takeover may cost, and takes over what was read: if things changed meanwhile, they have to be read again.
type takeDialog struct {
	g    *gui
	vm   string
	q    *question
	body *fyne.Container
	read *api.Takeover // what is shown
	gone bool
}

func (g *gui) openTake(vm string) {
	d := &takeDialog{g: g, vm: vm, body: container.NewStack()}
	d.q = g.openQuestion(t("take.title", "VM", g.vmName(vm)), d.body, longSize, t("button.take-now"), true, d.take)
	d.q.d.SetOnClosed(func() { d.gone = true })
	d.load(nil)
}

// load asks the engine what there is to read; refusal is why what was read before doesn't hold any more.
func (d *takeDialog) load(refusal *api.Error) {
	d.q.yes.Disable()
	d.read = nil
	spin := newBar()
	spin.set(-1)
	d.put(container.NewVBox(layout.NewSpacer(), widget.NewLabelWithStyle(t("take.loading"), fyne.TextAlignCenter, fyne.TextStyle{}), inset(spin.box), layout.NewSpacer()))
	var got *api.Takeover
	d.g.ask(askTime, func(ctx context.Context) (err error) {
		got, err = d.g.client.Takeover(ctx, d.vm)
		return err
	}, func(err *api.Error) {
		spin.set(-2)
		switch {
		case err != nil:
			d.put(container.NewVBox(prose(err.Sentence, widget.DangerImportance), prose(err.Next, widget.MediumImportance)))
		default:
			d.show(got, refusal)
		}
	})
}

func (d *takeDialog) put(o fyne.CanvasObject) {
	d.body.RemoveAll()
	d.body.Add(o)
}

func (d *takeDialog) show(x *api.Takeover, refusal *api.Error) {
	d.read = x
	box := container.New(layout.NewCustomPaddedVBoxLayout(2))
	if refusal != nil {
		box.Add(prose(refusal.Error(), widget.DangerImportance))
		box.Add(prose(t("take.changed"), widget.MediumImportance))
	}
	orphan := false
	if st := d.g.state.Status; st != nil {
		for i := range st.VMs {
			orphan = orphan || st.VMs[i].ID == d.vm && st.VMs[i].Orphan
		}
	}
	facts := takeoverFacts(x, orphan, d.g.now())
	loss := newInlay(factBox(facts[:1], true))
	loss.setAccent(theme.ColorNameWarning)
	box.Add(loss)
	if len(x.Warnings) > 0 {
		warn := container.New(layout.NewCustomPaddedVBoxLayout(-10))
		for _, w := range x.Warnings {
			warn.Add(prose(warningText(x, w), widget.MediumImportance))
		}
		p := newInlay(warn)
		p.setAccent(theme.ColorNameError)
		box.Add(p)
	}
	box.Add(factBox(facts[1:], false))
	box.Add(caption(t("take.promise", "Device", x.OwnerName), widget.LowImportance))
	d.put(container.NewVScroll(box))
	d.q.yes.Enable()
}

// take takes over what is shown.
func (d *takeDialog) take() {
	if d.read == nil {
		return
	}
	req := api.TakeOverVM{VM: d.vm, Token: d.read.Token}
	d.g.ask(askTime, func(ctx context.Context) error { return d.g.client.TakeOver(ctx, req) }, func(err *api.Error) {
		switch {
		case err != nil && err.Code == api.CodeConflict && !d.gone:
			d.load(err)
			return
		case err != nil:
			d.g.state.Notice = err
		}
		d.q.d.Hide()
		d.g.draw()
		d.g.follow.Poke()
	})
}
