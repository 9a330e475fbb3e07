//! The program: installs the crypto provider and executes the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Without a default, a second provider among the dependencies makes the first TLS connection
    // panic.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        external_endpoints::log::print(
            "external-endpoints: a crypto provider is installed already; please report this\n",
        );
        return ExitCode::FAILURE;
    }
    external_endpoints::cli::main()
}
