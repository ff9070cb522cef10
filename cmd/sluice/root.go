package main

import (
	"github.com/spf13/cobra"
)

// newRootCommand assembles the command from one file per noun.
func newRootCommand(d *deps) *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Durable machines on your own hosts: draining a host is a button press",
		Long: `Sluice runs a fleet of durable machines on your own hosts. A machine's disk is a URL
in an object store, so that a host is emptied by moving pointers: nothing is copied.

The fleet is found by --dir or SLUICE_DIR (a directory made by sluice dev up), or by
SLUICE_URL and SLUICE_TOKEN, with the fleet's authority in --ca-file or SLUICE_CA_FILE,
or by sluice login.`,
		Example: `  sluice machine create web-1 --app shop --network prod --service 'name=web,cmd=busybox httpd -f -p 8080,port=8080,check=http:/'
  sluice machine list
  sluice worker drain w1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if version && len(args) == 0 {
				return d.printVersion()
			}
			return needsSubcommand(cmd, args)
		},
	}
	root.Flags().BoolVarP(&version, "version", "v", false, "print the version of this binary")
	root.SetOut(d.stdout)
	root.SetErr(d.stderr)
	root.SetIn(d.stdin)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(d.flagErrors)
	root.PersistentFlags().StringVar(&d.dir, "dir", "",
		"directory of a fleet on this machine (SLUICE_DIR)")
	root.PersistentFlags().StringVar(&d.caFile, "ca-file", "",
		"file with the fleet's authority, for a fleet that --dir doesn't name (SLUICE_CA_FILE)")
	root.PersistentFlags().BoolVar(&d.json, "json", false, "print the result as JSON")
	root.AddCommand(nounCommands(d)...)
	root.AddCommand(shortcuts(d)...)
	return root
}

// nounCommands lists every noun.
func nounCommands(d *deps) []*cobra.Command {
	return []*cobra.Command{
		newAuditCommand(d),
		newDevCommand(d),
		newDiskCommand(d),
		newDoctorCommand(d),
		newDrainCommand(d),
		newImageCommand(d),
		newLoginCommand(d),
		newLogoutCommand(d),
		newMachineCommand(d),
		newNetworkCommand(d),
		newQuotaCommand(d),
		newCACommand(d),
		newSecretCommand(d),
		newServerCommand(d),
		newStoreCommand(d),
		newTokenCommand(d),
		newTopCommand(d),
		newUnpackCommand(d),
		newVersionCommand(d),
		newWhoamiCommand(d),
		newWorkerCommand(d),
	}
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
