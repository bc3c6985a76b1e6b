package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app"
	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor/qemu"
)

// runEngine runs the engine until ctx ends. It is a variable so that tests can run another.
var runEngine = func(ctx context.Context, o engineOptions) error {
	listen, err := multiaddrs(o.Listen)
	if err != nil {
		return err
	}
	accel := cmp.Or(o.Accel, os.Getenv("TAGALONG_ACCEL"), "auto")
	switch accel {
	case "auto", "kvm", "tcg":
	default:
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("There is no way to run VMs called %q.", accel), Next: "Say --accel auto, kvm or tcg (or set TAGALONG_ACCEL)."}
	}
	return app.Run(ctx, app.Options{
		DataDir: filepath.Clean(o.DataDir), Name: o.Name, Listen: listen, Log: o.Log, Version: o.Version,
		Hypervisor: &qemu.QEMU{Accel: accel},
	}, nil)
}

// multiaddrs turns "host:port" into what the network layer calls an address.
func multiaddrs(listen []string) ([]string, error) {
	var out []string
	for _, l := range listen {
		host, port, err := net.SplitHostPort(l)
		ip := net.ParseIP(host)
		if err != nil || ip == nil {
			return nil, &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q isn't an address to listen on.", l), Next: "Give an IP address and a port, for instance 0.0.0.0:4646."}
		}
		family := "ip6"
		if ip.To4() != nil {
			family = "ip4"
		}
		out = append(out, fmt.Sprintf("/%s/%s/tcp/%s", family, ip, port))
	}
	return out, nil
}
