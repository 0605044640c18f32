package host

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The parent-death signal is bound to the thread that started the child (golang/go#27505).
func TestChildOutlivesTheThreadThatAskedForIt(t *testing.T) {
	cat := exec.Command("cat")
	cat.SysProcAttr = processAttributes()
	in, _ := cat.StdinPipe()
	out, _ := cat.StdoutPipe()
	task := fmt.Sprintf("/proc/self/task/%d", onThreadThatEnds(func() {
		if err := launch(cat.Start); err != nil {
			t.Error(err)
		}
	}))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(task); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the thread does not end")
		}
	}
	fmt.Fprintln(in, "still here")
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "still here\n" {
		t.Errorf("it said %q: %v", line, err)
	}
	in.Close()
	if err := cat.Wait(); err != nil {
		t.Error(err)
	}
}

// onThreadThatEnds calls fn on a thread that ends with it, and returns the thread's number.
func onThreadThatEnds(fn func()) int {
	thread := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if syscall.Gettid() == os.Getpid() {
			thread <- onThreadThatEnds(fn) // the main thread never ends, and is held meanwhile
			return
		}
		fn()
		thread <- syscall.Gettid()
	}()
	return <-thread
}

func TestTailKeepsTheEndAndThePanic(t *testing.T) {
	var tail tail
	tail.add("starting")
	tail.add("panic: boom")
	for i := range 10_000 {
		tail.add(fmt.Sprint("frame ", i))
	}
	got := tail.String()
	if !strings.HasPrefix(got, "panic: boom\n…\n") || !strings.HasSuffix(got, "frame 9999") || len(got) > maxTail+100 {
		t.Errorf("%d bytes: %.40q … %q", len(got), got, got[len(got)-20:])
	}
}
