package ui

import (
	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	"fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"
)

// panel is a rounded surface with something on it.
type panel struct {
	widget.BaseWidget
	content fyne.CanvasObject
	fill    fyne.ThemeColorName
	accent  fyne.ThemeColorName // of the stripe at its left edge; "" for none
}

func newPanel(content fyne.CanvasObject) *panel { return newFilledPanel(content, colorPanel) }

// newInlay is a panel that lies on another.
func newInlay(content fyne.CanvasObject) *panel {
	return newFilledPanel(content, colorInlay)
}

func newFilledPanel(content fyne.CanvasObject, fill fyne.ThemeColorName) *panel {
	p := &panel{content: content, fill: fill}
	p.ExtendBaseWidget(p)
	return p
}

// setAccent colours the stripe at the panel's left edge.
func (p *panel) setAccent(name fyne.ThemeColorName) {
	if p.accent != name {
		p.accent = name
		p.Refresh()
	}
}

// CreateRenderer implements fyne.Widget.
func (p *panel) CreateRenderer() fyne.WidgetRenderer {
	r := &panelRenderer{panel: p, back: canvas.NewRectangle(nil), stripe: canvas.NewRectangle(nil)}
	r.back.CornerRadius = 10
	r.stripe.CornerRadius = 2
	r.Refresh()
	return r
}

type panelRenderer struct {
	panel        *panel
	back, stripe *canvas.Rectangle
}

// panelInset keeps a panel's content off its edges.
const panelInset = 8

func (r *panelRenderer) Layout(s fyne.Size) {
	r.back.Resize(s)
	r.stripe.Move(fyne.NewPos(5, 10))
	r.stripe.Resize(fyne.NewSize(4, max(0, s.Height-20)))
	left := r.left()
	r.panel.content.Move(fyne.NewPos(left, panelInset))
	r.panel.content.Resize(fyne.NewSize(s.Width-left-panelInset, s.Height-2*panelInset))
}

func (r *panelRenderer) left() float32 {
	if r.panel.accent != "" {
		return panelInset + 5
	}
	return panelInset
}

func (r *panelRenderer) MinSize() fyne.Size {
	return r.panel.content.MinSize().Add(fyne.NewSize(r.left()+panelInset, 2*panelInset))
}

func (r *panelRenderer) Refresh() {
	r.back.FillColor = theme.Color(r.panel.fill)
	r.stripe.Hidden = r.panel.accent == ""
	if r.panel.accent != "" {
		r.stripe.FillColor = theme.Color(r.panel.accent)
	}
	r.Layout(r.panel.Size())
	r.back.Refresh()
	r.stripe.Refresh()
	r.panel.content.Refresh()
}

func (r *panelRenderer) Objects() []fyne.CanvasObject {
	return []fyne.CanvasObject{r.back, r.stripe, r.panel.content}
}

func (r *panelRenderer) Destroy() {}

// dot is a small round light.
type dot struct {
	widget.BaseWidget
	color fyne.ThemeColorName
}

func newDot(color fyne.ThemeColorName) *dot {
	d := &dot{color: color}
	d.ExtendBaseWidget(d)
	return d
}

func (d *dot) set(color fyne.ThemeColorName) {
	if d.color != color {
		d.color = color
		d.Refresh()
	}
}

// CreateRenderer implements fyne.Widget.
func (d *dot) CreateRenderer() fyne.WidgetRenderer {
	r := &dotRenderer{dot: d, circle: canvas.NewCircle(nil)}
	r.Refresh()
	return r
}

const dotSize = 10

type dotRenderer struct {
	dot    *dot
	circle *canvas.Circle
}

func (r *dotRenderer) Layout(s fyne.Size) {
	r.circle.Resize(fyne.NewSize(dotSize, dotSize))
	r.circle.Move(fyne.NewPos((s.Width-dotSize)/2, (s.Height-dotSize)/2))
}
func (r *dotRenderer) MinSize() fyne.Size           { return fyne.NewSize(dotSize+6, dotSize) }
func (r *dotRenderer) Objects() []fyne.CanvasObject { return []fyne.CanvasObject{r.circle} }
func (r *dotRenderer) Destroy()                     {}
func (r *dotRenderer) Refresh() {
	r.circle.FillColor = theme.Color(r.dot.color)
	r.circle.Refresh()
}

// lines stacks labels closer than Fyne does, whose labels bring their own margins.
func lines(objects ...fyne.CanvasObject) *fyne.Container {
	return container.New(layout.NewCustomPaddedVBoxLayout(-10), objects...)
}

// text is a label of one line that ends in "…" where there is no room.
func text(s string, size fyne.ThemeSizeName, importance widget.Importance, bold bool) *widget.Label {
	l := widget.NewLabelWithStyle(s, fyne.TextAlignLeading, fyne.TextStyle{Bold: bold})
	l.SizeName, l.Importance, l.Truncation = size, importance, fyne.TextTruncateEllipsis
	return l
}

// prose is a label that takes as many lines as it needs.
func prose(s string, importance widget.Importance) *widget.Label {
	l := widget.NewLabel(s)
	l.Wrapping, l.Importance = fyne.TextWrapWord, importance
	return l
}

// caption is small prose.
func caption(s string, importance widget.Importance) *widget.Label {
	l := prose(s, importance)
	l.SizeName = theme.SizeNameCaptionText
	return l
}

// setText changes a label only when there is something to change; an empty one takes no room.
func setText(l *widget.Label, s string) {
	if s == "" {
		l.Hide()
	} else {
		l.Show()
	}
	if l.Text != s {
		l.SetText(s)
	}
}

// bar is a thin progress bar that also knows "under way, nobody knows how far".
type bar struct {
	known   *widget.ProgressBar
	unknown *widget.ProgressBarInfinite
	box     *fyne.Container
}

func newBar() *bar {
	b := &bar{known: widget.NewProgressBar(), unknown: widget.NewProgressBarInfinite()}
	b.known.TextFormatter = func() string { return "" }
	b.unknown.Stop()
	b.box = container.New(thin{}, b.known, b.unknown)
	b.known.Hide()
	b.unknown.Hide()
	return b
}

// set shows part from 0 to 1, an unknown one below 0, and no bar at all below -1. The unknown one
// moves only while somebody can see it: it would keep an idle PC busy.
func (b *bar) set(part float64) {
	switch {
	case part < -1:
		b.known.Hide()
		b.stop()
	case part < 0:
		b.known.Hide()
		if !b.unknown.Visible() {
			b.unknown.Show()
			b.unknown.Start()
		}
	default:
		b.stop()
		b.known.Show()
		if b.known.Value != part {
			b.known.SetValue(part)
		}
	}
}

func (b *bar) stop() {
	if b.unknown.Visible() {
		b.unknown.Stop()
		b.unknown.Hide()
	}
}

// thin is the layout of a bar: a strip with air around it.
type thin struct{}

const thinHeight = 6

func (thin) MinSize([]fyne.CanvasObject) fyne.Size { return fyne.NewSize(40, thinHeight+4) }

func (thin) Layout(objects []fyne.CanvasObject, s fyne.Size) {
	for _, o := range objects {
		o.Resize(fyne.NewSize(s.Width, thinHeight))
		o.Move(fyne.NewPos(0, (s.Height-thinHeight)/2))
	}
}

// inset gives a bar the same margins as the labels around it.
func inset(o fyne.CanvasObject) fyne.CanvasObject {
	return container.New(layout.NewCustomPaddedLayout(4, 4, 8, 8), o)
}
