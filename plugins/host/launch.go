package host

import (
	"runtime"
	"sync"
)

var launcher struct {
	once  sync.Once
	calls chan func()
}

// launch runs start on a thread that lives as long as this process. The kernel sends a child its parent-death signal
// when the *thread* that created it ends (golang/go#27505), and Go ends threads as it likes.
func launch(start func() error) error {
	launcher.once.Do(func() {
		launcher.calls = make(chan func())
		go func() {
			runtime.LockOSThread()
			for call := range launcher.calls {
				call()
			}
		}()
	})
	err := make(chan error, 1)
	launcher.calls <- func() { err <- start() }
	return <-err
}
