package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pylok/pylok/client"
)

// setting is one thing that says which server to talk to, how, and as whom. A flag says
// it, a variable, or a context of the config file.
type setting struct {
	flag     string
	variable string
	key      string // in the config file
	isPath   bool
	isSwitch bool // true or false
}

// The settings. Where run and lock --shell hand them on, it is in this order.
var (
	addressSetting  = setting{flag: "address", variable: addressVariable, key: "address"}
	tlsSetting      = setting{flag: "tls", variable: "PYLOK_TLS", key: "tls", isSwitch: true}
	caSetting       = setting{flag: "ca", variable: "PYLOK_CA", key: "ca", isPath: true}
	certSetting     = setting{flag: "cert", variable: "PYLOK_CERT", key: "cert", isPath: true}
	keySetting      = setting{flag: "key", variable: "PYLOK_KEY", key: "key", isPath: true}
	tlsMinSetting   = setting{flag: "tls-min-version", variable: "PYLOK_TLS_MIN_VERSION", key: "tls_min_version"}
	tokenSetting    = setting{flag: "token-file", variable: "PYLOK_TOKEN_FILE", key: "token_file", isPath: true}
	ciTokenSetting  = setting{flag: "ci-token", variable: "PYLOK_CI_TOKEN", key: "ci_token"}
	audienceSetting = setting{flag: "audience", variable: "PYLOK_AUDIENCE", key: "audience"}
	insecureSetting = setting{flag: "insecure", variable: "PYLOK_INSECURE", key: "insecure", isSwitch: true}
	holderSetting   = setting{flag: "holder", variable: "PYLOK_HOLDER", key: "holder"} // its flag is not of all commands

	connectionSettings = []setting{addressSetting, tlsSetting, caSetting, certSetting, keySetting, tlsMinSetting, tokenSetting, ciTokenSetting, audienceSetting, insecureSetting}
	allSettings        = append(connectionSettings[:len(connectionSettings):len(connectionSettings)], holderSetting)
)

const contextVariable = "PYLOK_CONTEXT"

// addConnectionFlags gives all commands the flags of the connection.
func addConnectionFlags(flags *pflag.FlagSet) {
	flags.String("context", "", "use what the config file has under `NAME`; pylok help context tells more")
	flags.String("address", "", "the server's `HOST:PORT` or unix:///PATH (default: the socket of this machine's server if there is one, or "+client.DefaultAddress+")")
	flags.Bool("tls", false, "encrypt the connection and check the server's certificate")
	flags.String("ca", "", "check the server's certificate against those in this PEM `FILE`; means --tls")
	flags.String("cert", "", "say who you are with the certificate in this PEM `FILE`; means --tls")
	flags.String("key", "", "the PEM `FILE` with the key of --cert")
	flags.String("tls-min-version", "", "take TLS from `VERSION` up, 1.2 or 1.3 (default 1.3)")
	flags.String("token-file", "", "say who you are with the bearer token in this `FILE`, a secret (the --token of a hold is a number and none)")
	flags.String("ci-token", "auto", "auto or off: in a CI job, with TLS to an --address, say who you are with the job's OIDC token")
	flags.String("audience", "", "the audience `TEXT` of that token in a GitHub job (default: the host of --address)")
	flags.Bool("insecure", false, "connect to another machine without TLS, and send a bearer token without TLS")
}

// found is what a setting is, and who says so.
type found struct {
	value string
	by    string // such as --ca, PYLOK_CA, or the context
	given bool   // somebody says so
	flag  bool   // a flag does
}

// settings are the settings of one run.
type settings struct {
	context   string // its name; empty: none is in force
	elsewhere bool   // the address is another than that of the context
	values    map[string]found
	proof     string // a sentence on what is sent to say who asks, once there are options; empty: nothing is
}

// of returns a setting. Nil settings have none.
func (s *settings) of(which setting) found {
	if s == nil {
		return found{}
	}
	return s.values[which.key]
}

// readSettings finds out what flags, environment and config file say. A flag counts
// first. A context that --context names counts before the variables, and any other after
// them. With an address from elsewhere no context counts that was not asked for, nor one
// that PYLOK_CONTEXT names, unless it is that server's: its credentials go there alone.
func readSettings(flags *pflag.FlagSet) (*settings, error) {
	s := &settings{values: map[string]found{}}
	given := func(flag string) bool { return flags.Lookup(flag) != nil && flags.Changed(flag) }
	name, named := os.Getenv(contextVariable), given("context")
	switch {
	case named:
		name = flags.Lookup("context").Value.String()
		if name == "" {
			return nil, usagef("--context needs a name; pylok context lists them")
		}
	case given("address"):
		name = ""
	}
	var inContext map[string]string
	if name != "" || !given("address") && os.Getenv(addressVariable) == "" {
		file, err := readContexts()
		if err != nil {
			return nil, err
		}
		if name == "" {
			name = file.byDefault
		}
		if name != "" {
			chosen, ok := file.contexts[name]
			if !ok {
				return nil, usagef("%s; pylok context lists them", file.missing(name))
			}
			inContext = chosen
		}
	}
	if variable := os.Getenv(addressVariable); name != "" && !named && variable != "" && !isSameServer(inContext[addressSetting.key], variable) {
		name, inContext = "", nil
	}
	s.context = name
	for _, which := range allSettings {
		var value found
		variable := os.Getenv(which.variable)
		text, has := inContext[which.key]
		switch {
		case given(which.flag):
			value = found{flags.Lookup(which.flag).Value.String(), "--" + which.flag, true, true}
		case has && (named || variable == ""):
			value = found{text, fmt.Sprintf("%s of the context %s", which.key, name), true, false}
		case variable != "":
			value = found{variable, which.variable, true, false}
		}
		if which.isSwitch && value.given {
			if _, err := strconv.ParseBool(value.value); err != nil {
				return nil, usagef("%s is %q; it can be true or false", value.by, value.value)
			}
		}
		s.values[which.key] = value
	}
	s.elsewhere = name != "" && !isSameServer(inContext[addressSetting.key], s.of(addressSetting).value)
	return s, nil
}

// isSameServer reports whether two addresses are one, which may be written in several ways;
// an empty one is that of this machine's own server.
func isSameServer(a, b string) bool {
	plain := func(address string) string {
		if address == "" {
			address = client.FindAddress()
		}
		if !isSocket(address) {
			return address
		}
		path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		return "unix://" + path
	}
	return plain(a) == plain(b) || (a == "") != (b == "") && a+b == client.DefaultAddress
}

// isSocket reports whether an address is meant to be that of a Unix socket.
func isSocket(address string) bool {
	return strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "/") || strings.HasPrefix(address, ".")
}

func (f found) isOn() bool {
	on, err := strconv.ParseBool(f.value)
	return err == nil && on
}

// options returns the address and how to connect to it.
func (s *settings) options() (address string, options client.Options, err error) {
	address = s.of(addressSetting).value
	options.Insecure = s.of(insecureSetting).isOn()
	why := s.wantsTLS(isSocket(address))
	if options.Insecure && why != "" {
		return "", options, usagef("%s means no TLS; leave it out, or leave out --tls, --ca and --cert (%s asks for TLS)", s.of(insecureSetting).by, why)
	}
	if why != "" {
		if options.TLS, err = s.tls(); err != nil {
			return "", options, err
		}
	}
	if cert := s.of(certSetting); cert.value != "" && options.TLS != nil {
		s.proof = fmt.Sprintf("The certificate is that in %s (%s).", cert.value, cert.by)
	}
	file := s.of(tokenSetting)
	if file.value != "" {
		options.Bearer = client.TokenFile(file.value)
		s.proof = fmt.Sprintf("The bearer token is that in %s (%s).", file.value, file.by)
		if _, err := os.Stat(file.value); err != nil {
			return "", options, usagef("%s: %v", file.by, err)
		}
		return address, options, nil
	}
	ci := s.of(ciTokenSetting)
	switch cmp.Or(ci.value, "auto") {
	case "auto":
	case "off":
		return address, options, nil
	default:
		return "", options, usagef("%s is %q; it can be auto or off", ci.by, ci.value)
	}
	if address == "" || options.TLS == nil || s.of(certSetting).value != "" {
		return address, options, nil
	}
	audience := s.of(audienceSetting).value
	if audience == "" {
		audience, _, _ = net.SplitHostPort(address) // Dial says what is wrong with it
	}
	if source, ok := client.JobToken(audience); ok {
		options.Bearer = source
		s.proof = "The bearer token is that of this CI job; --ci-token off sends none."
	}
	return address, options, nil
}

// wantsTLS returns what asks for TLS; empty: nothing does. For a socket only a flag can,
// which is then a mistake.
func (s *settings) wantsTLS(isSocket bool) string {
	if on := s.of(tlsSetting); on.given && (on.flag || !isSocket) {
		if on.isOn() {
			return on.by
		}
		return ""
	}
	for _, which := range []setting{caSetting, certSetting, keySetting} {
		if file := s.of(which); file.value != "" && (file.flag || !isSocket) {
			return file.by
		}
	}
	return ""
}

func (s *settings) tls() (*tls.Config, error) {
	ca, cert, key := s.of(caSetting), s.of(certSetting), s.of(keySetting)
	if (cert.value == "") != (key.value == "") {
		return nil, usagef("--cert and --key go together, and there is only %s", cmp.Or(cert.by, key.by))
	}
	config, err := client.TLSFiles{CA: ca.value}.Config()
	if err != nil {
		return nil, usagef("%s: %v", ca.by, err)
	}
	if cert.value != "" {
		if config, err = (client.TLSFiles{CA: ca.value, Certificate: cert.value, Key: key.value}).Config(); err != nil {
			return nil, usagef("%s: %v", cert.by, err)
		}
	}
	switch least := s.of(tlsMinSetting); least.value {
	case "", "1.3":
	case "1.2":
		config.MinVersion = tls.VersionTLS12
	default:
		return nil, usagef("%s is %q; it can be 1.2 or 1.3", least.by, least.value)
	}
	return config, nil
}

// handedOn returns the variables that have other programs talk to the same server in the
// same way: the context and what flags say, or all that is said where the server is not the
// context's. Paths are absolute there.
func (p *program) handedOn() [][2]string {
	var variables [][2]string
	context, all := "", false
	if p.settings != nil {
		context, all = p.settings.context, p.settings.elsewhere
	}
	if all {
		context = "" // whose credentials are for another server, unless a flag says otherwise
	}
	if context != "" || os.Getenv(contextVariable) != "" {
		variables = append(variables, [2]string{contextVariable, context})
	}
	for _, which := range connectionSettings {
		value := p.settings.of(which)
		if !value.flag && !(all && value.given) {
			continue
		}
		text := value.value
		if absolute, err := filepath.Abs(text); which.isPath && text != "" && err == nil {
			text = absolute
		}
		if which.flag == addressSetting.flag {
			text = p.address
		}
		variables = append(variables, [2]string{which.variable, text})
	}
	return variables
}

// holderFlag gives cmd the flag --holder, and returns what it is when the command runs:
// PYLOK_HOLDER or the context's without the flag, else what otherwise returns.
func (p *program) holderFlag(cmd *cobra.Command, usage, otherwiseText string, otherwise func() string) func() string {
	cmd.Flags().String("holder", "", usage+" (default: PYLOK_HOLDER, or "+otherwiseText+")")
	must(cmd.RegisterFlagCompletionFunc("holder", cobra.NoFileCompletions))
	return func() string {
		if holder := p.settings.of(holderSetting); holder.given {
			return holder.value
		}
		return otherwise()
	}
}

// ownHolder names this process, so that two on one machine are told apart.
func ownHolder() string { return client.DefaultHolder() + "/" + strconv.Itoa(os.Getpid()) }
