package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/meter"
)

// The kinds of jobs.
const (
	kindCreate  = "create"
	kindImport  = "import"
	kindExport  = "export"
	kindCheck   = "check"
	kindOffline = "offline"
	kindResolve = "resolve"
	kindSeed    = "seed"
	kindVerify  = "verify"
	kindSuspend = "suspend"
	kindResume  = "resume"
)

// keptJobs is how many ended jobs Status still shows.
const keptJobs = 5

// job is long work that a person can follow and cancel.
type job struct {
	e      *Engine
	vm     string
	cancel context.CancelFunc
	ended  chan struct{} // closed when the job has ended and says so

	// guarded by mu
	mu    sync.Mutex
	j     api.Job
	meter meter.Meter
	told  time.Time
	text  string // what the person reads when it is done, if it isn't the usual
}

func (j *job) snapshot() api.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.j
}

// startJob begins what do does and returns the job as accepted. Of about, the kind, the VM and the total count. A VM has
// one job of a kind at a time.
func (e *Engine) startJob(about api.Job, do func(ctx context.Context, j *job) error) (*api.Job, error) {
	about.ID, about.Phase, about.Started = newID(), about.Kind, time.Now()
	ctx, cancel := context.WithCancel(e.ctx)
	j := &job{e: e, vm: about.VM, cancel: cancel, ended: make(chan struct{}), j: about}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, other := range e.jobs {
		if s := other.snapshot(); s.Kind == about.Kind && s.VM == about.VM && !s.Done {
			cancel()
			if about.Kind == kindOffline {
				return nil, &api.Error{Code: api.CodeBusy, Sentence: "This device is getting ready to work offline already.", Next: "Try again in a moment."}
			}
			return nil, errBusy(about.VMName, map[string]string{kindExport: "its disk is being exported", kindCheck: "its disk is being checked", kindResolve: "your choice is being carried out", kindSeed: opSeed, kindVerify: "its copies are being verified", kindSuspend: opSuspend, kindResume: opResume}[about.Kind])
		}
	}
	e.jobs = append(trimJobs(e.jobs), j)
	e.spawn(func() {
		defer cancel()
		defer close(j.ended)
		j.end(do(ctx, j))
	})
	return &about, nil
}

// trimJobs forgets the oldest that have ended.
func trimJobs(jobs []*job) []*job {
	ended := 0
	for _, j := range jobs {
		if j.snapshot().Done {
			ended++
		}
	}
	var kept []*job
	for _, j := range jobs {
		if j.snapshot().Done && ended > keptJobs {
			ended--
			continue
		}
		kept = append(kept, j)
	}
	return kept
}

// progress notes how many bytes are done.
func (j *job) progress(bytes int64) {
	j.mu.Lock()
	total := j.j.Total
	j.mu.Unlock()
	j.progressOf(bytes, total)
}

// enter notes what the job does now.
func (j *job) enter(phase string) { j.found(func(j *api.Job) { j.Phase = phase }) }

// say sets what the person reads when the job is done.
func (j *job) say(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = text
}

// progressOf notes how many bytes are done, of a total that may change.
func (j *job) progressOf(bytes, total int64) {
	now := time.Now()
	j.mu.Lock()
	j.j.Bytes, j.j.Total = bytes, total
	j.j.Rate = j.meter.Update(now, bytes)
	j.j.ETA = meter.TimeLeft(j.j.Total-bytes, j.j.Rate)
	tell := now.Sub(j.told) >= toldEvery
	if tell {
		j.told = now
	}
	s := j.j
	j.mu.Unlock()
	if tell {
		j.e.hub.publish(api.Event{Kind: "job.progress", VM: s.VM, Job: &s})
	}
}

// found notes what the job has made or found.
func (j *job) found(note func(j *api.Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	note(&j.j)
}

func (j *job) end(err error) {
	j.mu.Lock()
	j.j.Done, j.j.ETA = true, 0
	kind, text := "job.done", j.text
	if text == "" {
		text = doneText(j.j)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, &api.Error{Code: api.CodeCancelled}):
		j.j.Error = &api.Error{Code: api.CodeCancelled, Sentence: "It was cancelled; nothing was made."}
		switch j.j.Kind {
		case kindVerify:
			j.j.Error.Sentence = "The verification was cancelled. What was repaired until then stays so."
		case kindCheck:
			j.j.Error.Sentence = "The check was cancelled."
		case kindResolve:
			j.j.Error.Sentence = "The check was cancelled. Your choice stands."
		case kindSeed:
			j.j.Error.Sentence = "It was cancelled. What was read until then stays, and needn't be fetched where it is right."
		case kindSuspend:
			j.j.Error.Sentence = "Suspending it was cancelled: " + j.j.VMName + " goes on."
		case kindResume:
			j.j.Error.Sentence = "Resuming it was cancelled: " + j.j.VMName + " is still suspended."
		case kindOffline:
			j.j.Error.Sentence = "Getting ready to work offline was cancelled. What is here already stays here."
		}
	case err != nil:
		j.j.Error = api.AsError(err)
	default:
		j.j.Bytes = j.j.Total
	}
	if j.j.Error != nil {
		kind, text = "job.failed", j.j.Error.Error()
	}
	s := j.j
	j.mu.Unlock()
	if s.Error != nil && s.Error.Code != api.CodeCancelled {
		j.e.log.Error("A job failed", "kind", s.Kind, "name", s.VMName, "error", err)
	}
	j.e.hub.publish(api.Event{Kind: kind, VM: s.VM, Text: text, Job: &s})
}

func doneText(j api.Job) string {
	switch {
	case j.Export != nil:
		return "The disk of " + j.VMName + " is in " + j.Export.File + "."
	case j.Verification != nil:
		return j.Verification.Sentence
	case j.Check != nil && j.Check.Clean:
		return "The disk of " + j.VMName + " is as it should be."
	case j.Seed != nil:
		return "What " + j.Seed.File + " has is on this device. Of " + j.VMName + " only what differs is fetched now."
	case j.Check != nil:
		return "Something is wrong with the disk of " + j.VMName + "."
	default:
		return j.VMName + " is ready."
	}
}

// job is the job of that ID, or nil.
func (e *Engine) job(id string) *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if j.snapshot().ID == id {
			return j
		}
	}
	return nil
}

// CancelJob implements api.Engine.
func (e *Engine) CancelJob(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if s := j.snapshot(); s.ID == id && !s.Done {
			if s.Kind == kindResolve && s.Phase != phaseChecking {
				return errConflict("You have chosen, and the devices follow that; it can't be called back.", "What you gave up is kept as a restore point.")
			}
			j.cancel()
			return nil
		}
	}
	return &api.Error{Code: api.CodeNotFound, Sentence: "There is no such job under way."}
}
