// Command runtime-wrapper stands before runc on a host that lacks CAP_SYS_RESOURCE, as in many
// sandboxes. `docker run --privileged` asks runc for every capability, and runc refuses one that it
// does not have itself. So the wrapper takes that capability out of what Docker asks for, and negative
// OOM scores with it, which only that capability allows. Then it becomes runc.
//
// It is for the host's Docker only. Inside a node the bounding set is already smaller, and plain runc
// does.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Where Debian installs it; RUNC overrides.
const defaultRunc = "/usr/sbin/runc"

const missingCapability = "CAP_SYS_RESOURCE"

func main() {
	if err := relax(os.Args[1:]); err != nil {
		// runc reads the same file and tells what is wrong with it.
		fmt.Fprintln(os.Stderr, "runtime-wrapper:", err)
	}
	runc := os.Getenv("RUNC")
	if runc == "" {
		runc = defaultRunc
	}
	os.Args[0] = runc
	err := syscall.Exec(runc, os.Args, os.Environ())
	fmt.Fprintf(os.Stderr, "runtime-wrapper: %s: %v\n", runc, err)
	os.Exit(127)
}

// relax rewrites the file in which the command line asks for a process: a bundle's config.json when a
// container is made, a file of its own for `exec`.
func relax(args []string) error {
	var verb, bundle, process string
	for i, arg := range args {
		value := func() string {
			if i+1 < len(args) {
				return args[i+1]
			}
			return ""
		}
		switch arg {
		case "create", "run", "restore", "exec":
			verb = arg
		case "--bundle", "-b":
			bundle = value()
		case "--process", "-p":
			process = value()
		}
	}
	switch {
	case verb == "exec" && process != "":
		return rewrite(process, relaxProcess)
	case verb != "" && verb != "exec" && bundle != "":
		return rewrite(filepath.Join(bundle, "config.json"), func(spec map[string]any) {
			if inner, ok := spec["process"].(map[string]any); ok {
				relaxProcess(inner)
			}
		})
	}
	return nil
}

// relaxProcess edits a `process` of the OCI runtime specification.
func relaxProcess(process map[string]any) {
	capabilities, _ := process["capabilities"].(map[string]any)
	for set, value := range capabilities {
		names, _ := value.([]any)
		kept := make([]any, 0, len(names))
		for _, name := range names {
			if name != missingCapability {
				kept = append(kept, name)
			}
		}
		capabilities[set] = kept
	}
	if score, ok := process["oomScoreAdj"].(float64); ok && score < 0 {
		process["oomScoreAdj"] = 0
	}
}

// rewrite changes a JSON object in a file.
func rewrite(path string, change func(map[string]any)) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	change(object)
	if text, err = json.Marshal(object); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o600)
}
