package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newNoun returns a command that does nothing but hold its verbs.
func newNoun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	for _, v := range verbs {
		v.Aliases = append(v.Aliases, habits[v.Name()].is...)
		v.SuggestFor = append(v.SuggestFor, habits[v.Name()].like...)
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// shortcuts are the few verbs that people type without a noun. They mean machines, and aren't in
// the help.
func shortcuts(d *deps) []*cobra.Command {
	list, destroy := newMachineListCommand(d), newMachineDestroyCommand(d)
	list.Use, list.Aliases, list.Hidden = "ls", []string{"ps"}, true
	destroy.Use, destroy.Hidden = "rm MACHINE", true
	return []*cobra.Command{list, destroy}
}

// newHelpCommand is --help for those who write it as a word.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Show the help of a command",
		Example: "  sluice help machine create",
		RunE: func(cmd *cobra.Command,
			args []string) error {
			return showHelp(cmd.Root(), args)
		},
	}
}

// showHelp shows the help of the command that words name below another one.
func showHelp(at *cobra.Command, words []string) error {
	for i, word := range words {
		next := verbOf(at, word)
		if next == nil {
			return noVerb(at, words[i:])
		}
		at = next
	}
	return at.Help()
}

func verbOf(cmd *cobra.Command, word string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return c
		}
	}
	return nil
}

// needsSubcommand shows the help when there is no verb, or the verb is help, and refuses an unknown
// one.
func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && args[0] == "help" {
		return showHelp(cmd, args[1:])
	}
	if len(args) > 0 {
		return noVerb(cmd, args)
	}
	if err := cmd.Help(); err != nil {
		return err
	}
	return &codedError{code: exitUsage}
}

func verbs(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return names
}

// untilCommand parses the flags of a command that runs one of the user's. It parses flags before
// and after the first argument, and returns the user's command, which may follow a --.
func untilCommand(cmd *cobra.Command, args []string) (first string, command []string, err error) {
	if len(args) == 0 {
		return "", nil, nil
	}
	first, command = args[0], args[1:]
	if len(command) == 0 || !strings.HasPrefix(command[0], "-") {
		return first, command, nil
	}
	if err := cmd.Flags().Parse(command); err != nil {
		return "", nil, flagError(cmd, err)
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return "", nil, pflag.ErrHelp
	}
	return first, cmd.Flags().Args(), nil
}
