package api

// How a screen is spoken to.
const (
	ScreenSPICE = "spice"
	ScreenVNC   = "vnc"
)

// AgentState says what is known of the agent (qemu-ga) inside a VM.
type AgentState string

// The states of an agent; "" is one that isn't known yet, or that the VM has no port for.
const (
	AgentAnswers AgentState = "answers" // the guest's clock is set by it after each pause
	AgentRefuses AgentState = "refuses" // it is there, but doesn't set the clock
	AgentSilent  AgentState = "silent"
)

// Screen is the way to a running VM's screen, for a viewer on the device that runs it.
type Screen struct {
	// Protocol is ScreenSPICE or ScreenVNC.
	Protocol string `json:"protocol"`
	// Socket is a Unix socket that only this person can open.
	Socket string `json:"socket"`
	// Password is the ticket: it opens the screen for some seconds, and is the last one given. "" where none is asked for. It must not come
	// into a log or onto a command line.
	Password string `json:"password,omitempty"`
}
