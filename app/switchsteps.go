package app

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/switching"
)

// What the person reads of a guest that writes memory about as fast as it leaves, and for how long one may stand still.

// longestPause is the longest pause that a person can allow.
const longestPause = 10 * time.Minute

// checkPause says whether a person can allow such a pause; 0 is the usual one.
func checkPause(d time.Duration) error {
	if d < 0 || d > 0 && d < 50*time.Millisecond || d > longestPause {
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("A VM can't be set to stand still for %s in a switch.", d), Next: "Say from 50ms to 10m, or 0 for the usual 300 ms."}
	}
	return nil
}

// allowedPause is for how long the guest may stand still when it is given to the device: by what was asked for this switch, else by the VM's
// settings; 0 is the usual.
func (v *vm) allowedPause(taker string) time.Duration {
	if w := v.wished(taker); w.pause > 0 {
		return w.pause
	}
	r, ok := v.record()
	if !ok {
		return 0
	}
	spec, err := specOf(r)
	if err != nil || checkPause(spec.Pause) != nil {
		return 0
	}
	return spec.Pause
}

// stepUp takes over what is done about a guest that writes much, and says whether that is news. It is for the giver's side.
func stepUp(r *switchRun, report switching.Report) (news bool) {
	if report.Allowed == 0 {
		return false // the memory isn't on its way yet
	}
	was := r.s
	r.s.Step, r.s.Slowed, r.s.AllowedPause = api.SwitchStep(report.Step), report.Slow, report.Allowed
	r.s.Estimate = api.SwitchEstimate{Memory: report.Estimate.Memory, Rate: report.Estimate.Rate, DirtyRate: report.Estimate.Dirty, Pause: report.Estimate.Pause, ToFull: report.ToFull}
	return r.explainStep(was)
}

// stepUpRemote is stepUp with what the giver tells.
func stepUpRemote(r *switchRun, p api.Switch) (news bool) {
	was := r.s
	r.s.Step, r.s.Slowed, r.s.AllowedPause, r.s.Estimate = p.Step, p.Slowed, p.AllowedPause, p.Estimate
	return r.explainStep(was)
}

// explainStep says why it takes long, once for each step.
func (r *switchRun) explainStep(was api.Switch) (news bool) {
	news = r.s.Step != api.StepUsual && (r.s.Step != was.Step || r.s.Slowed != was.Slowed || r.s.AllowedPause != was.AllowedPause)
	if news {
		r.s.Why = whyStep(r.s)
	}
	return news
}

// whyStep says what is done and why, in one sentence.
func whyStep(s api.Switch) string {
	as := "faster than"
	if s.Estimate.DirtyRate < s.Estimate.Rate {
		as = "about as fast as"
	}
	because := fmt.Sprintf("%s writes memory %s the connection carries it (%s against %s a second)", s.VMName, as, byteText(s.Estimate.DirtyRate), byteText(s.Estimate.Rate))
	if s.Estimate.DirtyRate < s.Estimate.Rate/2 {
		because = fmt.Sprintf("The connection carries %s a second", byteText(s.Estimate.Rate))
	}
	switch s.Step {
	case api.StepSlowed:
		return fmt.Sprintf("%s: it is slowed down by %d %% for a moment.", because, s.Slowed)
	case api.StepLonger:
		return fmt.Sprintf("%s: it may stand still for up to %s.", because, pauseText(s.AllowedPause))
	}
	return ""
}

// pauseText is a pause as a person reads it.
func pauseText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	default:
		return fmt.Sprintf("%d minutes", int(d.Minutes()+0.5))
	}
}

// offeredPause is what has to be allowed for a switch that came to nothing for want of a longer pause; 0 if that is more than can be.
func offeredPause(s api.Switch) time.Duration {
	d := (s.Estimate.Pause*3/2 + time.Second).Round(time.Second)
	if s.Estimate.Pause == 0 || checkPause(d) != nil {
		return 0
	}
	return d
}

// errTooBusy says for how long the guest would have stood still.
func errTooBusy(s api.Switch) *api.Error {
	stays := fmt.Sprintf("%s stays on %s.", s.VMName, s.FromName)
	e := &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("%s would have to stand still for about %s to move now, longer than the %s that it may: it has %s of memory to bring over a connection that carries %s a second. %s",
		s.VMName, pauseText(s.Estimate.Pause), pauseText(s.AllowedPause), byteText(s.Estimate.Memory), byteText(s.Estimate.Rate), stays)}
	if offer := offeredPause(s); offer > 0 {
		e.Next = fmt.Sprintf("Let it stand still for that long (tagalong switch --pause %s), try again when it does less, or have it suspended for the way (tagalong switch --way suspend).", offer)
	} else {
		e.Next = "Try again when it does less, or have it suspended for the way (tagalong switch --way suspend)."
	}
	return e
}
