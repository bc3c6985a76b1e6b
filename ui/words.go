package ui

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"fyne.io/fyne/v2/lang"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/assets"
	"tagalong.org/tagalong/ui/internal/locale"
)

// Fyne's packages are initialised by now.
func init() { locale.Restore() }

// loadTranslations makes the embedded translations known to Fyne. Loading them twice does no harm.
func loadTranslations() error {
	// Fyne asks for the language again.
	defer locale.Give()()
	if err := lang.AddTranslationsFS(assets.Translations, "translations"); err != nil {
		return fmt.Errorf("load translations: %w", err)
	}
	return nil
}

// t is the text for key in the person's language; args are names and values of its placeholders, in turn.
func t(key string, args ...any) string {
	return lang.X(key, key, placeholders(args))
}

// tn is t with a plural form chosen by n, which is also the placeholder Count.
func tn(key string, n int, args ...any) string {
	data := placeholders(args)
	data["Count"] = n
	return lang.XN(key, key, n, data)
}

func placeholders(args []any) map[string]any {
	m := make(map[string]any, len(args)/2+1)
	for i := 0; i+1 < len(args); i += 2 {
		if name, ok := args[i].(string); ok {
			m[name] = args[i+1]
		}
	}
	return m
}

// size writes a number of bytes for a person: three digits at most, binary units.
func size(n int64) string {
	if n < 0 {
		n = 0
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, u := float64(n), 0
	// 1000 rather than 1024, so that rounding never shows four digits.
	for f >= 999.5 && u < len(units)-1 {
		f /= 1024
		u++
	}
	digits := 0
	if u > 0 && f < 9.95 {
		digits = 1
	}
	s := strings.TrimSuffix(strconv.FormatFloat(f, 'f', digits, 64), ".0")
	return strings.Replace(s, ".", t("number.decimal"), 1) + " " + units[u]
}

// rate writes bytes a second.
func rate(n int64) string { return t("rate", "Size", size(n)) }

// span writes a duration with at most two units; what is under a second is milliseconds.
func span(d time.Duration) string {
	switch {
	case d < 0:
		d = 0
		fallthrough
	case d < time.Second:
		return t("span.ms", "MS", d.Milliseconds())
	case d < time.Minute:
		return t("span.s", "S", int(d/time.Second))
	case d < time.Hour:
		return t("span.min", "M", int(d/time.Minute), "S", int(d/time.Second)%60)
	case d < 48*time.Hour:
		return t("span.h", "H", int(d/time.Hour), "M", int(d/time.Minute)%60)
	default:
		return t("span.d", "D", int(d/(24*time.Hour)))
	}
}

// pause is for how long a VM stands still, as a person takes it in.
func pause(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return span(d)
}

// ago says how long before now something was, coarsely, so that it doesn't change every second.
func ago(then, now time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return t("ago.never")
	case d < time.Minute:
		return t("ago.now")
	case d < time.Hour:
		return tn("ago.min", int(d/time.Minute))
	case d < 48*time.Hour:
		return tn("ago.h", int(d/time.Hour))
	default:
		return tn("ago.d", int(d/(24*time.Hour)))
	}
}

// phaseText names a switch's phase for a person.
func phaseText(p api.SwitchPhase) string {
	switch p {
	case api.PhasePreflight:
		return t("phase.preflight")
	case api.PhaseCatchUp:
		return t("phase.catch-up")
	case api.PhaseMemory:
		return t("phase.memory")
	case api.PhaseHandOff:
		return t("phase.hand-off")
	case api.PhaseSuspend:
		return t("phase.suspend")
	case api.PhaseSend:
		return t("phase.send")
	case api.PhaseResume:
		return t("phase.resume")
	case api.PhaseDone:
		return t("phase.done")
	case api.PhaseCancelled:
		return t("phase.cancelled")
	case api.PhaseFailed:
		return t("phase.failed")
	}
	return string(p)
}

// percent is done/total as whole percents, 100 only when it is all there.
func percent(done, total int64) int {
	if total <= 0 || done <= 0 {
		return 0
	}
	if done >= total {
		return 100
	}
	return int(float64(done) / float64(total) * 100)
}
