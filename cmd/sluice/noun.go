package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// habits are names that people bring along from other tools, by the verb that they mean here.
var habits = map[string][]string{"list": {"ls"}, "destroy": {"rm"}}

// newNoun returns a command that does nothing but hold its verbs.
func newNoun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	for _, v := range verbs {
		v.Aliases = append(v.Aliases, habits[v.Name()]...)
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// shortcuts are the few verbs that people type without a noun. They mean machines, and aren't in the help.
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
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.Root()
			for i, word := range args {
				next := verbOf(at, word)
				if next == nil {
					return noVerb(at, args[i])
				}
				at = next
			}
			return at.Help()
		},
	}
}

func verbOf(cmd *cobra.Command, word string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return c
		}
	}
	return nil
}

// needsSubcommand shows the help when there is no verb, and refuses an unknown one.
func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return noVerb(cmd, args[0])
	}
	if err := cmd.Help(); err != nil {
		return err
	}
	return &codedError{code: exitUsage}
}

// noVerb says that a word is no verb of a command, and which one may have been meant.
func noVerb(cmd *cobra.Command, word string) error {
	hint := ""
	if like := meant(cmd, word); len(like) > 0 {
		hint = "; did you mean: " + strings.Join(like, ", ")
	}
	return usageError("%q is no verb of %s%s; its verbs are: %s", word, cmd.CommandPath(), hint, strings.Join(verbs(cmd), " "))
}

// meant returns the commands that a word may stand for: verbs that are spelled like it, and, where none is,
// verbs of that name elsewhere.
func meant(cmd *cobra.Command, word string) []string {
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	var like []string
	for _, name := range cmd.SuggestionsFor(word) {
		if slices.Contains(verbs(cmd), name) {
			like = append(like, cmd.CommandPath()+" "+name)
		}
	}
	if len(like) > 0 {
		return like
	}
	for _, noun := range cmd.Root().Commands() {
		if noun.Hidden {
			continue
		}
		if noun.Name() == word {
			like = append(like, noun.CommandPath())
		}
		if v := verbOf(noun, word); v != nil && !v.Hidden {
			like = append(like, v.CommandPath())
		}
	}
	return like
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

// untilCommand is for commands that run one of the user's: their flags end where that begins, with or without
// --. The flags before and after the first argument are parsed; what follows them is returned.
func untilCommand(cmd *cobra.Command, args []string) (first string, command []string, err error) {
	if len(args) == 0 {
		return "", nil, nil
	}
	first, command = args[0], args[1:]
	if len(command) == 0 || !strings.HasPrefix(command[0], "-") {
		return first, command, nil
	}
	if err := cmd.Flags().Parse(command); err != nil {
		return "", nil, usageError("%s", err)
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return "", nil, pflag.ErrHelp
	}
	return first, cmd.Flags().Args(), nil
}
