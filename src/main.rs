//! The program: chooses the crypto provider, hands over to the command line, and turns its answer into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two providers in one process and none chosen is a panic at the first TLS connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        external_endpoints::log::print(
            "external-endpoints: another crypto provider is installed already\n",
        );
        return ExitCode::FAILURE;
    }
    external_endpoints::cli::main()
}
