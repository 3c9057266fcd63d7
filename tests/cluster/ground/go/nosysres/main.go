// Command nosysres is an OCI runtime for machines whose capability bounding set lacks
// CAP_SYS_RESOURCE. There runc fails on any container that asks for it, for a negative
// oom_score_adj, or for a resource limit above the hard one. This program takes those three wishes
// out of the bundle (create, run, restore) or of the process file (exec), then becomes runc.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const missing = "CAP_SYS_RESOURCE"

var limits = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
}

func main() {
	args := os.Args[1:]
	var err error
	switch verb(args) {
	case "create", "run", "restore":
		err = rewrite(filepath.Join(option(args, ".", "--bundle", "-b"), "config.json"), "process")
	case "exec":
		if file := option(args, "", "--process", "-p"); file != "" {
			err = rewrite(file, "")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nosysres:", err)
	}
	for _, runc := range []string{os.Getenv("NOSYSRES_RUNC"), "/usr/sbin/runc", "/usr/bin/runc"} {
		if _, err := os.Stat(runc); err == nil {
			err = syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
			fmt.Fprintln(os.Stderr, "nosysres:", runc, err)
			os.Exit(127)
		}
	}
	fmt.Fprintln(os.Stderr, "nosysres: runc is not installed")
	os.Exit(127)
}

func verb(args []string) string {
	for _, a := range args {
		if slices.Contains([]string{"create", "run", "exec", "restore"}, a) {
			return a
		}
	}
	return ""
}

func option(args []string, fallback string, names ...string) string {
	for i, a := range args {
		for _, n := range names {
			if a == n && i+1 < len(args) {
				return args[i+1]
			}
			if v, ok := strings.CutPrefix(a, n+"="); ok {
				return v
			}
		}
	}
	return fallback
}

// rewrite edits the process description under key of a JSON file (the whole file without a key).
// Everything that it does not know is kept as it is.
func rewrite(path, key string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var whole map[string]any
	if err := decoder.Decode(&whole); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	process := whole
	if key != "" {
		process, _ = whole[key].(map[string]any)
	}
	modest(process)
	out, err := json.Marshal(whole)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o600) // keeps the mode of a file that exists
}

func modest(process map[string]any) {
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		if list, ok := set.([]any); ok {
			sets[name] = slices.DeleteFunc(list, func(c any) bool { return c == missing })
		}
	}
	if n, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(n.String(), "-") {
		process["oomScoreAdj"] = 0
	}
	if list, ok := process["rlimits"].([]any); ok {
		process["rlimits"] = slices.DeleteFunc(list, tooHigh)
	}
}

func tooHigh(limit any) bool {
	m, _ := limit.(map[string]any)
	name, _ := m["type"].(string)
	wanted, _ := m["hard"].(json.Number)
	var have syscall.Rlimit
	id, known := limits[name]
	if !known || syscall.Getrlimit(id, &have) != nil {
		return false
	}
	var n uint64
	_, err := fmt.Sscan(wanted.String(), &n)
	return err == nil && n > have.Max
}
