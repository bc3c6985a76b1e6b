package ui

import (
	"context"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/dialog"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"tagalong.org/tagalong/app/api"
)

// pairDialog leads through a pairing: choose a side, show or enter the code, compare the words.
type pairDialog struct {
	g     *gui
	d     *dialog.CustomDialog
	body  *fyne.Container
	mine  bool // a window was opened here, by this dialog
	ended bool // the outcome is shown
	// gone is set when the dialog has closed; answers that come later are for nobody.
	gone bool

	code   *widget.Label
	left   *widget.Label
	cancel context.CancelFunc // of a PairJoin under way
}

var pairSize = fyne.NewSize(460, 320)

func (g *gui) openPairing() {
	if g.pair != nil {
		return
	}
	p := &pairDialog{g: g, body: container.NewStack()}
	p.d = dialog.NewCustom(t("pair.title"), t("button.close"), p.body, g.win.win)
	p.d.SetOnClosed(p.closed)
	p.choose()
	p.d.Resize(pairSize)
	g.pair = p
	p.d.Show()
	// A window that another face opened is joined, not opened again.
	if r := g.view.Pairing; r != nil && !r.Done && r.Problem == nil && r.Code != "" {
		p.mine = true
		p.set(r)
	}
}

func (p *pairDialog) put(o ...fyne.CanvasObject) {
	p.body.RemoveAll()
	p.body.Add(container.NewVBox(append([]fyne.CanvasObject{layout.NewSpacer()}, append(o, layout.NewSpacer())...)...))
}

func (p *pairDialog) choose() {
	show := widget.NewButton(t("pair.show"), p.open)
	enter := widget.NewButton(t("pair.enter"), p.enter)
	show.Importance, enter.Importance = widget.HighImportance, widget.HighImportance
	p.put(prose(t("pair.choose"), widget.MediumImportance), show, enter)
}

// open opens a pairing window here.
func (p *pairDialog) open() {
	p.wait(t("pair.opening"))
	p.mine = true
	var got *api.Pairing
	p.g.ask(askTime, func(ctx context.Context) (err error) {
		got, err = p.g.client.PairStart(ctx, api.PairStart{})
		return err
	}, func(err *api.Error) {
		switch {
		case p.gone && err == nil:
			p.g.cancelPairing()
		case p.gone:
		case err != nil:
			p.mine = false
			p.fail(err.Sentence, err.Next)
		default:
			p.set(pairing(got, p.g.now()))
			p.g.follow.Poke()
		}
	})
}

// set follows the pairing window that is open here.
func (p *pairDialog) set(r *pairRow) {
	if !p.mine || p.ended || r == nil {
		return
	}
	switch {
	case r.Problem != nil:
		p.fail(r.Problem.Title, r.Problem.Text)
	case r.Done && len(r.Words) > 0:
		p.words(r.Peer, r.Words)
	case r.Done:
		p.fail(t("pair.over"), "")
	case r.Code != "":
		p.showCode(r)
	}
}

func (p *pairDialog) showCode(r *pairRow) {
	if p.code == nil {
		p.code = widget.NewLabelWithStyle("", fyne.TextAlignCenter, fyne.TextStyle{Bold: true, Monospace: true})
		p.code.SizeName = theme.SizeNameHeadingText
		p.code.Selectable = true
		p.left = widget.NewLabelWithStyle("", fyne.TextAlignCenter, fyne.TextStyle{})
		p.left.Importance = widget.LowImportance
		shown := []fyne.CanvasObject{widget.NewLabelWithStyle(t("pair.shown"), fyne.TextAlignCenter, fyne.TextStyle{}), p.code, p.left}
		if r.Addrs != "" {
			shown = append(shown, prose(t("pair.shown.at", "Addrs", r.Addrs), widget.LowImportance))
		}
		p.put(shown...)
	}
	setText(p.code, r.Code)
	if r.Left > 0 {
		setText(p.left, t("pair.left", "Span", span(r.Left)))
	} else {
		setText(p.left, t("pair.over"))
	}
}

// enter asks for the code that the other device shows.
func (p *pairDialog) enter() {
	code := widget.NewEntry()
	code.SetPlaceHolder(t("pair.code.hint"))
	addr := widget.NewEntry()
	addr.SetPlaceHolder(t("pair.addr.hint"))
	join := widget.NewButton(t("pair.join"), nil)
	join.Importance = widget.HighImportance
	join.Disable()
	code.OnChanged = func(s string) {
		if strings.TrimSpace(s) == "" {
			join.Disable()
		} else {
			join.Enable()
		}
	}
	join.OnTapped = func() { p.join(strings.TrimSpace(code.Text), strings.TrimSpace(addr.Text)) }
	code.OnSubmitted = func(s string) {
		if strings.TrimSpace(s) != "" {
			join.OnTapped()
		}
	}
	addr.OnSubmitted = code.OnSubmitted
	p.put(widget.NewLabel(t("pair.code")), code, widget.NewLabel(t("pair.addr")), addr, join)
	p.g.win.win.Canvas().Focus(code)
}

func (p *pairDialog) join(code, addr string) {
	p.wait(t("pair.joining"))
	ctx, cancel := context.WithTimeout(p.g.ctx, pairTime)
	p.cancel = cancel
	var got *api.Pairing
	p.g.ask(pairTime, func(context.Context) (err error) {
		// Closing the dialog ends ctx too.
		got, err = p.g.client.PairJoin(ctx, api.PairJoin{Code: code, Addr: addr})
		return err
	}, func(err *api.Error) {
		cancel()
		switch {
		case p.gone:
		case err != nil:
			p.fail(err.Sentence, err.Next)
		case got.Error != nil:
			p.fail(got.Error.Sentence, got.Error.Next)
		default:
			r := pairing(got, p.g.now())
			p.words(r.Peer, r.Words)
		}
		p.g.follow.Poke()
	})
}

func (p *pairDialog) wait(s string) {
	spin := newBar()
	spin.set(-1)
	p.put(widget.NewLabelWithStyle(s, fyne.TextAlignCenter, fyne.TextStyle{}), inset(spin.box))
}

// words is the good end: both devices show the same words.
func (p *pairDialog) words(peer string, words []string) {
	p.ended = true
	shown := widget.NewLabelWithStyle(strings.Join(words, "  "), fyne.TextAlignCenter, fyne.TextStyle{Bold: true})
	shown.SizeName, shown.Wrapping = theme.SizeNameSubHeadingText, fyne.TextWrapWord
	p.put(prose(t("pair.words", "Device", peer), widget.SuccessImportance), shown, prose(t("pair.differ"), widget.LowImportance))
}

// fail is the bad end, from which one may try again.
func (p *pairDialog) fail(sentence, next string) {
	p.ended = true
	again := widget.NewButton(t("pair.again"), func() {
		p.ended, p.mine, p.code = false, false, nil
		p.choose()
	})
	text := prose(next, widget.MediumImportance)
	if next == "" {
		text.Hide()
	}
	p.put(prose(sentence, widget.DangerImportance), text, again)
}

// closed closes the pairing window with the dialog: nobody looks at its code any more.
func (p *pairDialog) closed() {
	p.gone = true
	p.g.pair = nil
	if p.cancel != nil {
		p.cancel()
	}
	if p.mine && !p.ended {
		p.g.cancelPairing()
	}
}

func (g *gui) cancelPairing() {
	g.ask(askTime, g.client.PairCancel, func(*api.Error) { g.follow.Poke() })
}
