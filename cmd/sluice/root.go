package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// newRootCommand assembles the command from one file per noun.
func newRootCommand(d *deps) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Durable machines on your own hosts: draining a host is a button press",
		Long: `Sluice runs a fleet of durable machines on your own hosts. A machine's disk is a URL in an object
store, so that a host is emptied by moving pointers: nothing is copied.

The fleet is found by --dir or SLUICE_DIR (a directory made by sluice dev up), or by SLUICE_URL and
SLUICE_TOKEN.`,
		Example: `  sluice machine create web-1 --app shop --network prod --service 'name=web,cmd=busybox httpd -f -p 8080,port=8080,check=http:/'
  sluice machine list
  sluice worker drain w1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          needsSubcommand,
	}
	root.SetOut(d.stdout)
	root.SetErr(d.stderr)
	root.SetIn(d.stdin)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	root.PersistentFlags().StringVar(&d.dir, "dir", "", "directory of a fleet on this machine (SLUICE_DIR)")
	root.PersistentFlags().BoolVar(&d.json, "json", false, "print the result as JSON")
	root.AddCommand(nounCommands(d)...)
	return root
}

// nounCommands lists every noun.
func nounCommands(d *deps) []*cobra.Command {
	return []*cobra.Command{
		newDevCommand(d),
		newDiskCommand(d),
		newDoctorCommand(d),
		newDrainCommand(d),
		newImageCommand(d),
		newMachineCommand(d),
		newServerCommand(d),
		newVersionCommand(d),
		newWorkerCommand(d),
	}
}

// newNoun returns a command that does nothing but hold its verbs.
func newNoun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: needsSubcommand}
	cmd.AddCommand(verbs...)
	return cmd
}

// needsSubcommand shows the help when there is no verb, and refuses an unknown one.
func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("%q is no verb of %s; its verbs are: %s", args[0], cmd.CommandPath(), verbs(cmd))
	}
	if err := cmd.Help(); err != nil {
		return err
	}
	return &codedError{code: exitUsage}
}

func verbs(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, " ")
}

// exactly takes n arguments, named for the error message.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError("%s needs %s", cmd.CommandPath(), names[len(args)])
		}
		if len(args) > len(names) {
			return usageError("%s does not take %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// atLeastOne takes one or more arguments.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError("%s needs %s", cmd.CommandPath(), name)
		}
		return nil
	}
}

// requires refuses a command without the named flags.
func requires(names ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		for _, name := range names {
			if !cmd.Flags().Changed(name) {
				return usageError("%s needs --%s", cmd.CommandPath(), name)
			}
		}
		return nil
	}
}
