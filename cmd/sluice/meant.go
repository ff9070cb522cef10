package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// habits are words of other tools for our verbs, by verb. Words in "is" run the verb. For words in
// "like" the error only names the verb.
var habits = map[string]struct{ is, like []string }{
	"list":    {is: []string{"ls"}, like: []string{"ps", "get"}},
	"destroy": {is: []string{"rm"}, like: []string{"delete", "remove", "del", "kill"}},
	"create": {like: []string{"run", "launch", "new", "add", "deploy", "apply", "build",
		"pull", "import"}},
	"status":     {like: []string{"inspect", "show", "describe", "info", "get"}},
	"show":       {like: []string{"inspect", "status", "describe", "info", "get"}},
	"exec":       {like: []string{"ssh", "sh", "shell", "bash", "console", "attach", "enter"}},
	"logs":       {like: []string{"log", "journal"}},
	"migrate":    {like: []string{"move", "mv"}},
	"events":     {like: []string{"history"}},
	"checkpoint": {like: []string{"snapshot"}},
	"uncordon":   {like: []string{"resume", "enable", "undrain"}},
	"cordon":     {like: []string{"disable", "taint"}},
	"drain":      {like: []string{"evacuate", "evict"}},
	"cancel":     {like: []string{"stop", "abort", "rm"}},
	"revoke":     {like: []string{"delete", "remove", "rm", "destroy", "disable"}},
}

// nouns are what other tools call the nouns.
var nouns = map[string][]string{
	"machine": {"machines", "m", "container", "containers", "instance", "instances", "vm", "vms",
		"pod", "pods"},
	"worker": {"workers", "node", "nodes", "host", "hosts", "cluster", "member", "members"},
	"image":  {"images"},
	"disk":   {"disks", "volume", "volumes", "storage"},
	"drain":  {"drains"},
	"token":  {"tokens"},
	"doctor": {"check", "diagnose"},
	"server": {"serve", "daemon"},
}

// ways say how to do what is a verb in other tools and none here. They are named by that verb, with
// our noun in front if the verb means something else elsewhere.
var ways = map[string]string{
	"cp":           "copy through a command: tar -c DIR | sluice machine exec MACHINE -- tar -x -C /TARGET, or the other way round",
	"restart":      "sluice machine stop MACHINE && sluice machine start MACHINE",
	"reboot":       "sluice machine stop MACHINE && sluice machine start MACHINE",
	"pause":        "sluice machine stop MACHINE",
	"snapshot":     "sluice disk checkpoint --machine MACHINE NAME",
	"wait":         "create, start, stop, destroy and migrate wait by themselves, unless --wait=false",
	"port-forward": "a machine's port is at /v1/machines/MACHINE/ports/PORT/ of the fleet's API",
	"port":         "a machine's port is at /v1/machines/MACHINE/ports/PORT/ of the fleet's API",
	"proxy":        "a machine's port is at /v1/machines/MACHINE/ports/PORT/ of the fleet's API",
	"auth":         "sluice login, or set SLUICE_URL and SLUICE_TOKEN, or give --dir",
	"context":      "the fleet is the one of SLUICE_URL and SLUICE_TOKEN, of --dir, or of sluice login",
	"config":       "the fleet is the one of SLUICE_URL and SLUICE_TOKEN, of --dir, or of sluice login",
	"remote":       "the fleet is the one of SLUICE_URL and SLUICE_TOKEN, of --dir, or of sluice login",
	"up":           "a fleet on this machine: sluice dev up",
	"down":         "a fleet on this machine: sluice dev down",
	"top":          "sluice machine status MACHINE, sluice worker show WORKER, sluice disk top",
	"stats":        "sluice machine status MACHINE, sluice worker show WORKER, sluice disk top",
	"update":       "a machine's config is fixed when it is created: sluice machine create",
	"edit":         "a machine's config is fixed when it is created: sluice machine create",
	"scale":        "a machine's config is fixed when it is created: sluice machine create",
	"rename":       "a machine keeps its name: sluice machine create",
	"app":          "apps come and go with their machines: sluice machine list --app APP",
	"apps":         "apps come and go with their machines: sluice machine list --app APP",
	"networks":     "sluice network list, and their machines: sluice machine list --network NETWORK",

	"machine set":   "a machine's config is fixed when it is created: sluice machine create",
	"disk list":     "a disk is a URL: sluice disk info URL; those of machines are told by: sluice machine status MACHINE",
	"worker remove": "empty it, and then stop its daemon: sluice worker drain WORKER",
	"worker create": "a worker joins by itself, once its daemon runs with a token: sluice worker token create --name NAME, and see: sluice worker --help",
	"image remove":  "an image stays: the disks of machines are forks of it; see: sluice image list",
	"image show":    "sluice image list, and of its disk: sluice disk info URL",
}

// wayOf returns what to do instead of a noun's verb that doesn't exist; "": not known.
func wayOf(cmd *cobra.Command, word string) string {
	if !cmd.HasParent() {
		return ""
	}
	for _, same := range [][]string{{"remove", "rm", "delete", "destroy", "leave"}, {"list", "ls"},
		{"create", "add", "join", "new"},
		{"show", "status", "inspect", "info", "describe"}, {"set"}} {
		if way := ways[cmd.Name()+" "+same[0]]; way != "" && slices.Contains(same, word) {
			return way
		}
	}
	return ""
}

// flagHabits are what other tools call flags.
var flagHabits = map[string][]string{
	"json":    {"output", "o", "format", "quiet", "q"},
	"yes":     {"force", "f", "y"},
	"worker":  {"node", "host", "target"},
	"to":      {"target", "worker", "node", "host"},
	"env":     {"e", "environment"},
	"service": {"c", "container", "s"},
	"tail":    {"num", "number"},
	"image":   {"i", "from"},
	"memory":  {"m", "mem"},
	"cpus":    {"c", "cpu"},
	"workdir": {"w", "cwd", "chdir"},
	"wait":    {"w", "d"},
	"detach":  {"d"},
}

// pointless are flags of other tools that our verbs don't need, with the reason.
var pointless = map[string]string{
	"list all": "all are listed", "list a": "all are listed",
	"list all-namespaces": "all are listed", "list A": "all are listed",
	"list watch":                 "watch(1) runs a command again and again",
	"list w":                     "watch(1) runs a command again and again",
	"events watch":               "watch(1) runs a command again and again",
	"events w":                   "watch(1) runs a command again and again",
	"events follow":              "watch(1) runs a command again and again",
	"events f":                   "watch(1) runs a command again and again",
	"drain ignore-daemonsets":    "a drain moves every machine",
	"drain delete-emptydir-data": "a drain moves the disks, too",
	"logs timestamps":            "each line has its time", "logs t": "each line has its time",
	"create name": "the name is an argument of its own",
	"create rm":   "a machine stays until it is destroyed",
}

// called returns the names for which word is another name.
func called(word string, names []string, others func(name string) []string) []string {
	var found []string
	for _, name := range names {
		if slices.Contains(others(name), word) {
			found = append(found, name)
		}
	}
	return found
}

// spelled returns the names that are spelled like a word, or begin with it. How near is near enough
// is for the library of the commands to say, so that flags and verbs are told alike.
func spelled(word string, names []string) []string {
	all := &cobra.Command{SuggestionsMinimumDistance: 2}
	if len(word) <= 3 {
		all.SuggestionsMinimumDistance = 1
	}
	for _, name := range names {
		all.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	return all.SuggestionsFor(word)
}

// didYouMean is what is added to an error about a word; "" without anything to add.
func didYouMean(like []string) string {
	if len(like) == 0 {
		return ""
	}
	return "; did you mean: " + strings.Join(like, ", ")
}

// flagErrors says what is wrong about a flag. Where a noun has no such verb, that is what is wrong:
// the flag was the verb's.
func (d *deps) flagErrors(cmd *cobra.Command, err error) error {
	if cmd.HasAvailableSubCommands() {
		_, rest, findErr := cmd.Root().Find(d.args)
		cmd.Flags().ParseErrorsAllowlist.UnknownFlags = true
		if findErr == nil && cmd.Flags().Parse(rest) == nil && cmd.Flags().NArg() > 0 {
			return noVerb(cmd, cmd.Flags().Args())
		}
	}
	return flagError(cmd, err)
}

// flagError returns the error for a wrong flag, with a suggestion.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError("%s", err)
	}
	word := unknown.GetSpecifiedName()
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	like := called(word, names, func(name string) []string { return flagHabits[name] })
	// one letter is spelled like any other
	if len(like) == 0 && unknown.GetSpecifiedShortnames() == "" {
		like = spelled(word, names)
	}
	for i := range like {
		like[i] = "--" + like[i]
	}
	verb := cmd.Name()
	for name, habit := range habits { // of a shortcut
		if slices.Contains(habit.is, verb) {
			verb = name
		}
	}
	if why, ok := pointless[verb+" "+word]; ok {
		return usageError("%s; leave it out: %s", err, why)
	}
	return usageError("%s%s", err, didYouMean(like))
}

// noVerb returns the error for a first word that isn't a verb of a command, with a suggestion.
func noVerb(cmd *cobra.Command, words []string) error {
	word := words[0]
	like := verbFirst(cmd, words)
	if len(like) == 0 {
		like = below(cmd, called(word, verbs(cmd),
			func(name string) []string { return namesOf(cmd, name) }))
	}
	way := wayOf(cmd, word) // knows better than what a word may mean elsewhere
	if way == "" && len(like) == 0 {
		way = ways[word]
	}
	if way != "" {
		return &codedError{code: exitUsage, err: errs.New(errs.Invalid, "%q is no verb of %s", word,
			cmd.CommandPath()).WithRemedy("%s", way)}
	}
	if len(like) == 0 {
		like = meant(cmd, word)
	}
	if len(like) == 0 && cmd.Annotations[beginWith] != "" {
		like = []string{cmd.Annotations[beginWith] + " " + word}
	}
	return usageError("%q is no verb of %s%s; its verbs are: %s", word, cmd.CommandPath(),
		didYouMean(like), strings.Join(verbs(cmd), " "))
}

// beginWith annotates a noun whose things are made by a verb of another.
const beginWith = "begin-with"

// verbFirst returns the command for which the words are in the order of other tools: get nodes.
func verbFirst(cmd *cobra.Command, words []string) []string {
	if cmd.HasParent() || len(words) < 2 {
		return nil
	}
	for _, noun := range cmd.Commands() {
		if noun.Name() != words[1] && !slices.Contains(nouns[noun.Name()], words[1]) {
			continue
		}
		if v := verbOf(noun, words[0]); v != nil {
			return []string{v.CommandPath()}
		}
		return below(noun, called(words[0], verbs(noun),
			func(name string) []string { return namesOf(noun, name) }))
	}
	return nil
}

// meant returns the commands that a word may stand for: verbs that are spelled like it, and, where
// there are none, verbs of that name elsewhere, and those of machines that other tools call so.
func meant(cmd *cobra.Command, word string) []string {
	if like := below(cmd, spelled(word, verbs(cmd))); len(like) > 0 {
		return like
	}
	var like []string
	for _, noun := range cmd.Root().Commands() {
		if noun.Hidden {
			continue
		}
		if noun.Name() == word {
			like = append(like, noun.CommandPath())
		}
		v := verbOf(noun, word)
		// never suggest a verb that destroys something else
		if v == nil || v.Hidden || cmd.HasParent() && v.Name() == "destroy" {
			continue
		}
		like = append(like, v.CommandPath())
	}
	if machine := verbOf(cmd.Root(), "machine"); machine != nil && !cmd.HasParent() {
		like = append(like, below(machine, called(word, verbs(machine),
			func(name string) []string { return namesOf(machine, name) }))...)
	}
	slices.Sort(like)
	return slices.Compact(like)
}

// namesOf are the names that others have for a verb.
func namesOf(cmd *cobra.Command, name string) []string {
	if !cmd.HasParent() {
		return nouns[name]
	}
	return verbOf(cmd, name).SuggestFor
}

func below(cmd *cobra.Command, names []string) []string {
	var paths []string
	for _, name := range names {
		paths = append(paths, cmd.CommandPath()+" "+name)
	}
	return paths
}
