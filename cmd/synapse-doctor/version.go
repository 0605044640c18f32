package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// buildVersion is set by the linker: -X main.buildVersion=1.2.3.
var buildVersion string

// version is the release, or the commit that the binary was built from.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func runVersion(_ context.Context, args []string, s streams) (int, error) {
	f := newFlags("version", "", "The version of this program.", s)
	if err := f.Parse(args); err != nil {
		return exitFailed, err
	}
	if f.NArg() > 0 {
		return exitFailed, fmt.Errorf("version takes no argument")
	}
	fmt.Fprintf(s.out, "synapse-doctor %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK, nil
}
