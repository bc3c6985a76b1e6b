package surroundings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	managerName = "org.freedesktop.NetworkManager"
	managerPath = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	deviceName  = managerName + ".Device"
	busName     = "org.freedesktop.DBus"
	properties  = busName + ".Properties"
)

// FollowMetered tells, until ctx ends, whether this device's way to elsewhere costs by the byte, first and whenever that changes, as NetworkManager says
// on the system's bus. Where nobody can tell it isn't metered: that is said in the log once, and looked for again. An answer that was there is believed for a
// minute after whom it came from has gone: a network manager that starts again mustn't cost money.
func FollowMetered(ctx context.Context, log *slog.Logger, tell func(metered bool)) {
	w := &meterWatch{connect: dbus.ConnectSystemBus, way: wayInterface, log: log, again: 30 * time.Second, grace: time.Minute, patience: 5 * time.Second}
	w.run(ctx, tell)
}

// wayInterface is the network interface of this device's way to elsewhere; "" if there is none.
func wayInterface() string {
	at, ok := wayOut()
	if !ok {
		return ""
	}
	return interfaceOf(at)
}

// meterWatch follows a network manager.
type meterWatch struct {
	connect  func(...dbus.ConnOption) (*dbus.Conn, error)
	way      func() string
	log      *slog.Logger
	again    time.Duration // how often it is asked without having said anything, or looked for
	grace    time.Duration // how long its last word is believed without it
	patience time.Duration // how long an answer may take

	metered bool
	told    bool
	heard   time.Time // when there was an answer
	silent  bool      // that there is none was noted
}

func (w *meterWatch) run(ctx context.Context, tell func(bool)) {
	for ctx.Err() == nil {
		if err := w.follow(ctx, tell); err != nil && ctx.Err() == nil {
			w.unknown(err, tell)
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.again):
		}
	}
}

// unknown notes that nobody says anything.
func (w *meterWatch) unknown(err error, tell func(bool)) {
	if !w.silent {
		w.silent = true
		w.log.Info("Nobody tells whether the connection is metered: it counts as not metered", "error", err)
	}
	if !w.told || time.Since(w.heard) >= w.grace {
		w.say(false, tell)
	}
}

func (w *meterWatch) say(metered bool, tell func(bool)) {
	if !w.told || w.metered != metered {
		w.told, w.metered = true, metered
		tell(metered)
	}
}

// follow asks on a connection of its own for as long as that holds.
func (w *meterWatch) follow(ctx context.Context, tell func(bool)) error {
	conn, err := w.connect(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("connect to the system's bus: %w", err)
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(managerName), dbus.WithMatchInterface(properties), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchArg(0, managerName)},
		{dbus.WithMatchSender(managerName), dbus.WithMatchInterface(properties), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchArg(0, deviceName)},
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(busName), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, managerName)},
	} {
		bound, cancel := context.WithTimeout(ctx, w.patience)
		err := conn.AddMatchSignalContext(bound, match...)
		cancel()
		if err != nil {
			return fmt.Errorf("listen on the system's bus: %w", err)
		}
	}
	tick := time.NewTicker(w.again)
	defer tick.Stop()
	for {
		if err := w.ask(ctx, conn, tell); err != nil {
			w.unknown(err, tell)
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-conn.Context().Done():
				return errors.New("the system's bus hung up")
			case <-tick.C: // the way may be another one
				waiting = false
			case s := <-signals:
				waiting = !matters(s)
			}
		}
	}
}

// matters says whether a signal may be about metering: a device with a radio has much else to tell.
func matters(s *dbus.Signal) bool {
	if s == nil || s.Name != properties+".PropertiesChanged" || len(s.Body) < 2 {
		return true
	}
	changed, ok := s.Body[1].(map[string]dbus.Variant)
	if !ok {
		return true
	}
	for _, name := range []string{"Metered", "PrimaryConnection", "State"} {
		if _, is := changed[name]; is {
			return true
		}
	}
	return false
}

// ask asks once, and tells.
func (w *meterWatch) ask(ctx context.Context, conn *dbus.Conn, tell func(bool)) error {
	ctx, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	manager := conn.Object(managerName, managerPath)
	overall, err := metering(ctx, manager, managerName)
	if err != nil {
		return fmt.Errorf("ask the network manager: %w", err)
	}
	device := MeteringUnknown
	if way := w.way(); way != "" {
		var path dbus.ObjectPath
		err := manager.CallWithContext(ctx, managerName+".GetDeviceByIpIface", dbus.FlagNoAutoStart, way).Store(&path)
		if err == nil {
			device, err = metering(ctx, conn.Object(managerName, path), deviceName)
		}
		if err != nil {
			// It isn't one of the manager's: what holds overall counts.
			w.log.Debug("The network manager doesn't tell of a network interface", "interface", way, "error", err)
		}
	}
	if w.silent {
		w.silent = false
		w.log.Info("The network manager tells whether the connection is metered")
	}
	w.heard = time.Now()
	w.say(metered(device, overall), tell)
	return nil
}

// metering is an object's property Metered.
func metering(ctx context.Context, of dbus.BusObject, iface string) (Metering, error) {
	var v dbus.Variant
	if err := of.CallWithContext(ctx, properties+".Get", dbus.FlagNoAutoStart, iface, "Metered").Store(&v); err != nil {
		return MeteringUnknown, err
	}
	var m uint32
	if err := v.Store(&m); err != nil {
		return MeteringUnknown, fmt.Errorf("metered: %w", err)
	}
	return Metering(m), nil
}
