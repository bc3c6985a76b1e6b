package main

import (
	"context"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// awaitJob begins a job and shows how it goes, to its end. How it ended is in the job. The first Ctrl-C calls cancel, whose error leaves at
// once; nil cancels the job.
func (c *cli) awaitJob(ctx context.Context, client *api.Client, quiet bool, begin func() (*api.Job, error), cancel func(context.Context) error) (*api.Job, error) {
	st, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	job, err := begin()
	if err != nil {
		return nil, err
	}
	w := &jobWatch{client: client, job: *job, progress: newProgress(c.err, quiet), cancel: cancel}
	if err := w.follow(ctx, st.Seq); err != nil {
		return nil, err
	}
	return &w.job, nil
}

// followJob is awaitJob that fails if the job does.
func (c *cli) followJob(ctx context.Context, client *api.Client, quiet bool, begin func() (*api.Job, error), cancel func(context.Context) error) (*api.Job, error) {
	job, err := c.awaitJob(ctx, client, quiet, begin, cancel)
	if err == nil && job.Error != nil {
		err = job.Error
	}
	return job, err
}

// jobWatch follows one job.
type jobWatch struct {
	client   *api.Client
	job      api.Job
	progress *progress
	cancel   func(context.Context) error // nil: as jobs are cancelled
	missing  int
}

func (w *jobWatch) follow(ctx context.Context, after uint64) error {
	defer w.progress.clear()
	if w.take(w.job) {
		return nil
	}
	f := &follower{client: w.client, after: after, read: w.read, interrupted: w.interrupted,
		heard: func(ev api.Event, fresh bool) (bool, error) {
			news := ev.Job != nil && ev.Job.ID == w.job.ID && (fresh || ev.Job.Done)
			return news && w.take(*ev.Job), nil
		}}
	return f.follow(ctx)
}

// take shows news of the job and says whether it has ended.
func (w *jobWatch) take(job api.Job) bool {
	w.job, w.missing = job, 0
	if !job.Done {
		w.progress.show(step{name: jobWords(job), bytes: job.Bytes, total: job.Total, rate: job.Rate, left: job.ETA})
	}
	return job.Done
}

func (w *jobWatch) read(st *api.Status) (bool, error) {
	for _, job := range st.Jobs {
		if job.ID == w.job.ID {
			return w.take(job), nil
		}
	}
	if w.missing++; w.missing < patience {
		return false, nil
	}
	return false, &api.Error{Code: api.CodeInternal, Sentence: "The engine has lost sight of the work.",
		Next: "See whether the VM is there with: tagalong vm list"}
}

func (w *jobWatch) interrupted(ctx context.Context, n int) error {
	if n > 1 {
		return &api.Error{Code: api.CodeCancelled, Sentence: "Left; the work goes on.", Next: "See how it goes with: tagalong status"}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if w.cancel != nil {
		if err := w.cancel(ctx); err != nil {
			return err
		}
	} else if err := w.client.CancelJob(ctx, w.job.ID); err != nil {
		w.progress.note(err.Error())
		return nil
	}
	w.progress.note("Cancelling. Press Ctrl-C again to leave at once.")
	return nil
}

// jobWords says what a job does at the moment.
func jobWords(job api.Job) string {
	switch job.Kind + " " + job.Phase {
	case "offline ", "offline offline":
		return "Getting ready to work offline"
	case "offline bringing":
		return "Bringing what comes along"
	case "offline completing":
		return "Fetching what is missing"
	case "offline telling":
		return "Telling the other devices"
	case "seed ", "seed seed":
		return "Reading the file"
	case "resolve ", "resolve resolve", "resolve settling":
		return "Carrying out the choice"
	case "resolve heeding":
		return "Waiting for the device with the version that you kept"
	case "resolve keeping":
		return "Keeping the other version"
	case "verify ", "verify verify":
		return "Comparing " + job.VMName + " with its copies"
	case "suspend ", "suspend suspend":
		return "Saving the memory"
	case "resume ", "resume resume":
		return "Loading the memory"
	case "add disk ", "add disk add disk":
		return "Making the disk"
	case "resolve checking":
		return "Checking blocks"
	}
	return sentenceCase(job.Phase, job.Kind)
}

// sentenceCase is the first text that isn't empty, with a capital.
func sentenceCase(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return strings.ToUpper(text[:1]) + text[1:]
		}
	}
	return "Working"
}
