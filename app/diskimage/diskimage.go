// Package diskimage brings other programs' disk images into disks, and disks into images: raw, qcow2, vdi, vmdk
// and vhdx, through qemu-img.
//
// It guarantees that an image which points to other files is refused (it could name any file of this
// device, whose content would then be copied to all others), that holes stay holes, and that a failure is
// an *api.Error or wraps syscall.ENOSPC.
//
// Test it with go test; qemu-utils must be there.
package diskimage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// tool converts images; it comes with QEMU.
const tool = "qemu-img"

// formats are those that qemu-img reads and people have.
var formats = map[string]bool{"raw": true, "qcow2": true, "vdi": true, "vmdk": true, "vhdx": true}

// Image is what qemu-img says of a file.
type Image struct {
	Path   string
	Format string
	Size   int64 // of the disk inside, in bytes
}

// Known says whether images of a format can be brought in.
func Known(format string) bool { return formats[format] }

// ErrFormat is the refusal of a format that isn't Known.
func ErrFormat(format string) error {
	return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("Images of the format %q can't be imported.", format), Next: "Tagalong takes raw, qcow2, vdi, vmdk and vhdx."}
}

// Inspect reads an image's kind and size. format may be "", then it is found out.
func Inspect(ctx context.Context, path, format string) (Image, error) {
	if err := readable(path); err != nil {
		return Image{}, err
	}
	args := []string{"info", "--output=json"}
	if format != "" {
		args = append(args, "-f", format)
	}
	out, err := exec.CommandContext(ctx, tool, append(args, "file:"+path)...).Output()
	if err != nil {
		return Image{}, cmp.Or(ctx.Err(), explainTool(err))
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
		return Image{}, fmt.Errorf("read qemu-img's answer: %w", err)
	}
	switch {
	case info.Backing != "" || info.Data.Data.DataFile != "":
		return Image{}, &api.Error{Code: api.CodeUsage, Sentence: "This image is only a part: it stands on another file.", Next: "Make a whole one first, for instance with: qemu-img convert"}
	case !Known(info.Format):
		return Image{}, ErrFormat(info.Format)
	}
	return Image{Path: path, Format: info.Format, Size: info.Size}, nil
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

// Fill copies an image into disk, which is all zeros and at least as large, through the disk's own server: every format that
// qemu-img reads takes the same way. socketDir is a directory that only this user can enter; a socket lives there meanwhile.
// progress gets bytes of the image. What was copied isn't flushed. Errors: those of the package, ctx's.
func Fill(ctx context.Context, disk vmdisk.Disk, img Image, socketDir string, log *slog.Logger, progress func(done int64)) error {
	return serve(ctx, disknbd.Backend{Disk: disk}, socketDir, log, func(uri string) error {
		return convert(ctx, img.Size, progress, "-n", "-W", "-f", img.Format, "-O", "raw", "--target-is-zero", "file:"+img.Path, uri)
	})
}

// serve lends b to use under a URI.
func serve(ctx context.Context, b nbd.Backend, socketDir string, log *slog.Logger, use func(uri string) error) error {
	socket := filepath.Join(socketDir, "image.sock")
	l, err := nbd.Listen(socket)
	if err != nil {
		return fmt.Errorf("open the disk's socket: %w", err)
	}
	serveCtx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	server := &nbd.Server{Backend: b, Log: log.With("part", "nbd")}
	go func() { served <- server.Serve(serveCtx, l) }()
	defer func() { stop(); <-served }()
	return use((&url.URL{Scheme: "nbd+unix", Path: "/", RawQuery: url.Values{"socket": {socket}}.Encode()}).String())
}

// convert runs qemu-img convert, which copies size bytes.
func convert(ctx context.Context, size int64, progress func(done int64), args ...string) error {
	cmd := exec.CommandContext(ctx, tool, append([]string{"convert", "-p"}, args...)...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return cmp.Or(ctx.Err(), explainTool(err))
	}
	lines := bufio.NewScanner(out)
	lines.Split(splitProgress)
	for lines.Scan() {
		if percent, ok := parsePercent(lines.Text()); ok {
			progress(int64(percent / 100 * float64(size)))
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text := strings.TrimSpace(complaint.String())
		if strings.Contains(text, "No space left") {
			return fmt.Errorf("copy the image: %s: %w", text, syscall.ENOSPC)
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
