package hypervisor

import (
	"context"
	"errors"
	"io"
)

var (
	// ErrNoPostCopy says that this device's system or hypervisor can't let a guest run before all of its memory is there.
	ErrNoPostCopy = errors.New("hypervisor: a guest can't go on here before all of its memory is there")
	// ErrApart says that a guest's memory is in two places and can't be put together here any more: the guest can only be ended.
	ErrApart = errors.New("hypervisor: the memory is in two places")
)

// Side is which part of a memory in two places a hypervisor has.
type Side string

// The sides.
const (
	Whole Side = ""      // all of it is here, or nothing was begun
	Left  Side = "left"  // the guest has gone ahead, and what it lacks is here
	Ahead Side = "ahead" // the guest is here, and some of its memory isn't
)

// Apart is how a guest stands that was moved by post-copy: it goes on at the taker with the memory that it has there, and what it lacks comes after
// it, first what it asks for. Until that has ended neither hypervisor alone has all of the memory.
type Apart struct {
	Side Side
	// Broken says that nothing comes: the stream has ended, and has to be made anew.
	Broken bool
	// Remaining is how many bytes are still to leave, as the side that was left knows.
	Remaining int64
	// Failed says that this side has given up.
	Failed bool
}

// PostCopier is a Guest whose memory may be in two places for a while.
type PostCopier interface {
	Guest
	// TeleportApart is Teleport of a guest that may go ahead.
	TeleportApart(ctx context.Context) (OutgoingApart, error)
	// IncomingApart is Incoming for one. It fails with ErrNoPostCopy.
	IncomingApart(ctx context.Context) (io.ReadWriteCloser, error)
	// LoadedApart is Loaded for one: apart says that the guest can go on, and that some of its memory is still to come. It may take as long as the
	// stream does.
	LoadedApart(ctx context.Context) (apart bool, err error)
	// Apart asks how the memory stands. It may take as long as the stream does, on the side that went ahead: a hypervisor that waits for a page
	// answers nobody.
	Apart(ctx context.Context) (Apart, error)
	// AwaitWhole waits, on the side that went ahead, until all of the memory is there.
	AwaitWhole(ctx context.Context) error
	// SendRest gives a new stream to the side that was left, after the one before was ended; TakeRest does so on the side that went ahead. Both wait
	// until their hypervisor has noticed that the one before has ended. SendRest fails with ErrApart if that doesn't know how to go on.
	SendRest(ctx context.Context) (io.ReadWriteCloser, error)
	TakeRest(ctx context.Context) (io.ReadWriteCloser, error)
	// CallBack ends, on the side that was left, a teleport whose stream has ended, so that the guest can go on here: this hypervisor has all of the memory
	// still. What it sent is lost to the other side, which can never be given the rest: the caller knows that it never let the guest go on, and
	// never will. It fails with ErrApart if this hypervisor doesn't know how to come to an end.
	CallBack(ctx context.Context) error
}

// OutgoingApart is a guest's memory on its way, of which some may come after the guest. Closing its Stream ends only who carries it: the hypervisor
// doesn't notice, and waits. Cancel works until the taker has let the guest go on, which the caller must know.
type OutgoingApart interface {
	Outgoing
	// GoAhead has the hypervisor keep what hasn't left until it is asked for: AtSwitchover comes at once. Call it after the guest was paused.
	GoAhead(ctx context.Context) error
	// Sever ends the stream for the hypervisor too: after Finish, for SendRest to make a new one.
	Sever()
}
