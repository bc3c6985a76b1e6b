package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// job is a VM on its way into being.
type job struct {
	cancel context.CancelFunc

	// guarded by mu
	mu    sync.Mutex
	j     api.Job
	meter meter
}

const (
	minMemoryMiB = 32
	maxMemoryMiB = 1 << 20
	maxCPUs      = 64
	maxNameRunes = 64
	// keptJobs is how many ended jobs Status still shows.
	keptJobs = 5
	// importTool converts images; it comes with QEMU.
	importTool = "qemu-img"
)

// imageFormats are those that qemu-img reads and people have.
var imageFormats = map[string]bool{"raw": true, "qcow2": true, "vdi": true, "vmdk": true, "vhdx": true}

func (j *job) snapshot() api.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.j
}

// CreateVM implements api.Engine.
func (e *Engine) CreateVM(ctx context.Context, req api.CreateVM) (*api.Job, error) {
	if err := e.checkCreate(req); err != nil {
		return nil, err
	}
	image, err := inspectImage(ctx, req)
	if err != nil {
		return nil, err
	}
	size := max(req.DiskBytes, image.size)
	if size <= 0 {
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "A new VM needs a disk size.", Next: "Say how large its disk may grow: --disk 40G"}
	}
	size = (size + blockSize - 1) / blockSize * blockSize
	if size > vmdisk.MaxSize {
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "That disk is too large.", Next: "A disk may have up to 16 TiB."}
	}
	spec := api.Spec{
		CPUs: max(req.CPUs, 1), MemoryKiB: qemu.EvenMemory(max(req.MemoryMiB, minMemoryMiB) << 10), DiskBytes: size,
		Machine: qemu.DefaultMachine, CPU: qemu.DefaultCPU, Screen: req.Screen, Network: req.Network,
	}
	jobCtx, cancel := context.WithCancel(e.ctx)
	kind := "create"
	if req.Image != "" {
		kind = "import"
	}
	j := &job{cancel: cancel, j: api.Job{ID: newID(), Kind: kind, VM: newID(), VMName: req.Name, Phase: kind, Started: time.Now(), Total: image.size}}
	e.mu.Lock()
	e.jobs = append(trimJobs(e.jobs), j)
	e.mu.Unlock()
	accepted := j.snapshot()
	e.spawn(func() {
		defer cancel()
		e.endJob(j, e.create(jobCtx, j, spec, image))
	})
	return &accepted, nil
}

func (e *Engine) checkCreate(req api.CreateVM) error {
	usage := func(sentence, next string) error {
		return &api.Error{Code: api.CodeUsage, Sentence: sentence, Next: next}
	}
	name := strings.TrimSpace(req.Name)
	switch {
	case name == "" || name != req.Name || len([]rune(name)) > maxNameRunes || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return usage(fmt.Sprintf("%q can't be a VM's name.", req.Name), "Use one to 64 letters, without spaces at the ends.")
	case req.MemoryMiB < minMemoryMiB || req.MemoryMiB > maxMemoryMiB:
		return usage("That isn't a sensible amount of memory.", "Give at least 32M, for instance --memory 2G.")
	case req.CPUs < 0 || req.CPUs > maxCPUs:
		return usage("That isn't a sensible number of processors.", "Give between 1 and 64.")
	case req.Format != "" && !imageFormats[req.Format]:
		return usage(fmt.Sprintf("Images of the format %q can't be imported.", req.Format), "Tagalong takes raw, qcow2, vdi, vmdk and vhdx.")
	}
	for _, r := range e.records() {
		if r.Name == name {
			return errConflict(fmt.Sprintf("There is a VM called %q already.", name), "Choose another name.")
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if s := j.snapshot(); !s.Done && s.VMName == name {
			return errConflict(fmt.Sprintf("A VM called %q is being made already.", name), "Wait for it, or choose another name.")
		}
	}
	return nil
}

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

// image is what qemu-img says of a file.
type image struct {
	path   string
	format string
	size   int64 // of the disk inside, in bytes
}

// inspectImage reads an image's kind and size. An image that points to other files is refused: it
// could name any file of this device, whose content would then be copied to all others.
func inspectImage(ctx context.Context, req api.CreateVM) (image, error) {
	if req.Image == "" {
		return image{}, nil
	}
	if _, err := os.Stat(req.Image); err != nil {
		return image{}, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no image %s that can be read.", req.Image), Next: "Check the path.", Cause: err.Error()}
	}
	args := []string{"info", "--output=json"}
	if req.Format != "" {
		args = append(args, "-f", req.Format)
	}
	out, err := exec.CommandContext(ctx, importTool, append(args, "file:"+req.Image)...).Output()
	if err != nil {
		return image{}, explainTool(err)
	}
	var info struct {
		Format  string `json:"format"`
		Size    int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
		Data    struct {
			Data struct {
				DataFile string `json:"data-file"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return image{}, fmt.Errorf("read qemu-img's answer: %w", err)
	}
	switch {
	case info.Backing != "" || info.Data.Data.DataFile != "":
		return image{}, &api.Error{Code: api.CodeUsage, Sentence: "This image is only a part: it stands on another file.", Next: "Make a whole one first, for instance with: qemu-img convert"}
	case !imageFormats[info.Format]:
		return image{}, &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("Images of the format %q can't be imported.", info.Format), Next: "Tagalong takes raw, qcow2, vdi, vmdk and vhdx."}
	}
	return image{path: req.Image, format: info.Format, size: info.Size}, nil
}

func explainTool(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return &api.Error{Code: api.CodeNoHypervisor, Sentence: "qemu-img isn't installed on this device.", Next: "Install it (on Debian and Ubuntu: sudo apt install qemu-utils) and try again.", Cause: err.Error()}
	}
	cause := err.Error()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		cause = strings.TrimSpace(string(exit.Stderr))
	}
	return &api.Error{Code: api.CodeUsage, Sentence: "The image can't be read.", Next: "Check that it is a disk image and isn't in use.", Cause: cause}
}

// marker says that a VM's directory holds something unfinished: a crash before its removal
// leaves what the next engine deletes.
func marker(dir string) string { return filepath.Join(dir, "unfinished") }

func unfinished(dir string) bool {
	_, err := os.Stat(marker(dir))
	return err == nil
}

// create makes the disk, fills it, and only then lets the fleet know.
func (e *Engine) create(ctx context.Context, j *job, spec api.Spec, img image) (err error) {
	id, name := j.j.VM, j.j.VMName
	dir := e.vmDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dataDirError(e.opt.DataDir, err)
	}
	if err := writeDurably(marker(dir), nil); err != nil {
		return dataDirError(e.opt.DataDir, err)
	}
	var disk *vmdisk.Store
	defer func() {
		if err == nil {
			return
		}
		if disk != nil {
			err = errors.Join(err, disk.Close())
		}
		if rmErr := os.RemoveAll(dir); rmErr != nil {
			e.log.Warn("Clearing an unfinished VM failed", "vm", id, "error", rmErr)
		}
	}()
	diskID := vmdisk.NewID()
	disk, err = vmdisk.Create(filepath.Join(dir, "disk"), diskID, spec.DiskBytes, e.diskOptions(id))
	if err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	if err := disk.Activate(1); err != nil {
		return fmt.Errorf("activate the disk: %w", err)
	}
	if img.path != "" {
		if err := e.fill(ctx, j, disk, img); err != nil {
			return err
		}
	}
	if err := disk.Flush(); err != nil {
		return fmt.Errorf("flush the disk: %w", err)
	}
	return e.publish(id, name, spec, disk)
}

// publish makes the VM known: from here on it exists.
func (e *Engine) publish(id, name string, spec api.Spec, disk *vmdisk.Store) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	machine, err := baton.NewOwner(baton.Config{}, 1)
	if err != nil {
		return err
	}
	record := directory.VM{
		ID: id, Name: name, Spec: raw, Disk: disk.ID().String(), DiskBytes: disk.Size(), State: string(api.VMStopped),
		Position: directory.Position(disk.Info().Position), At: time.Now(),
	}
	created, err := e.dir.NewCreated(id)
	if err != nil {
		return fmt.Errorf("sign the VM's first transfer: %w", err)
	}
	if err := e.dir.AppendTransfer(created, directory.BatonEntry(id, machine.Encode())); err != nil {
		return fmt.Errorf("write the VM's first transfer: %w", err)
	}
	if err := e.dir.PutVM(record); err != nil {
		return fmt.Errorf("write the VM's record: %w", err)
	}
	if err := os.Remove(marker(e.vmDir(id))); err != nil {
		return fmt.Errorf("finish the VM's directory: %w", err)
	}
	v := e.newVM(id, machine, disk, nil, nil)
	e.mu.Lock()
	e.vms[id] = v
	e.mu.Unlock()
	v.syncFeeds()
	e.tell("vm.created", v, name+" is ready.")
	return nil
}

// fill copies an image through the disk's own server: holes stay holes, and every format that
// qemu-img reads takes the same way.
func (e *Engine) fill(ctx context.Context, j *job, disk *vmdisk.Store, img image) error {
	run := e.runDir(j.j.VM)
	defer os.RemoveAll(run)
	socket := filepath.Join(run, "import.sock")
	l, err := nbd.Listen(socket)
	if err != nil {
		return fmt.Errorf("open the disk's socket: %w", err)
	}
	serveCtx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	e.spawn(func() { served <- nbdServer(disk, e.log).Serve(serveCtx, l) })
	defer func() { stop(); <-served }()

	target := (&url.URL{Scheme: "nbd+unix", Path: "/", RawQuery: url.Values{"socket": {socket}}.Encode()}).String()
	cmd := exec.CommandContext(ctx, importTool, "convert", "-n", "-p", "-W", "-f", img.format, "-O", "raw", "--target-is-zero", "file:"+img.path, target)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return explainTool(err)
	}
	lines := bufio.NewScanner(out)
	lines.Split(splitProgress)
	for lines.Scan() {
		if percent, ok := parsePercent(lines.Text()); ok {
			e.jobProgress(j, int64(percent/100*float64(img.size)))
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text := strings.TrimSpace(complaint.String())
		if strings.Contains(text, "No space left") {
			return errNoSpace(errors.New(text))
		}
		return &api.Error{Code: api.CodeInternal, Sentence: "Copying the image failed.", Next: "Nothing was made; the cause tells what to mend.", Cause: text}
	}
	return nil
}

// splitProgress cuts qemu-img's output where it returns the carriage.
func splitProgress(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// parsePercent reads "    (12.34/100%)".
func parsePercent(s string) (float64, bool) {
	s, ok := strings.CutSuffix(strings.TrimSpace(s), "/100%)")
	if !ok {
		return 0, false
	}
	p, err := strconv.ParseFloat(strings.TrimPrefix(s, "("), 64)
	return p, err == nil && p >= 0 && p <= 100
}

func (e *Engine) jobProgress(j *job, bytes int64) {
	j.mu.Lock()
	j.j.Bytes = bytes
	j.j.Rate = j.meter.update(time.Now(), bytes)
	j.j.ETA = timeLeft(j.j.Total-bytes, j.j.Rate)
	s := j.j
	j.mu.Unlock()
	e.hub.publish(api.Event{Kind: "job.progress", VM: s.VM, Job: &s})
}

func (e *Engine) endJob(j *job, err error) {
	j.mu.Lock()
	j.j.Done, j.j.ETA = true, 0
	kind, text := "job.done", j.j.VMName+" is ready."
	switch {
	case errors.Is(err, context.Canceled):
		j.j.Error = &api.Error{Code: api.CodeCancelled, Sentence: "It was cancelled; nothing was made."}
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
	if err != nil && !errors.Is(err, context.Canceled) {
		e.log.Error("Making a VM failed", "name", s.VMName, "error", err)
	}
	e.hub.publish(api.Event{Kind: kind, VM: s.VM, Text: text, Job: &s})
}

// CancelJob implements api.Engine.
func (e *Engine) CancelJob(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range e.jobs {
		if s := j.snapshot(); s.ID == id && !s.Done {
			j.cancel()
			return nil
		}
	}
	return &api.Error{Code: api.CodeNotFound, Sentence: "There is no such job under way."}
}
