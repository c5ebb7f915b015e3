//! Lists the handlers; finds httpd and APR, generates the bindings and compiles the shim. With `--no-default-features`: the list
//! alone.

#![allow(missing_docs)]

use std::path::Path;
use std::{env, fs, io};

fn main() {
    let listed = list_handlers().map_err(|why| format!("the handlers cannot be listed: {why}"));
    #[cfg(feature = "httpd")]
    let listed = listed.and_then(|()| httpd::build());
    listed.unwrap_or_else(|why| {
        eprintln!("\nmod_websocket cannot be built: {why}\n");
        std::process::exit(1);
    });
}

/// A module of src/handlers/mod.rs that is a folder is a handler: so each is named once.
fn list_handlers() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/handlers/mod.rs");
    let modules = fs::read_to_string("src/handlers/mod.rs")?;
    let names = modules.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut names: Vec<&str> = names.filter(|name| Path::new("src/handlers").join(name).is_dir()).collect();
    names.sort_unstable();
    let each = |form: &dyn Fn(&str) -> String| names.iter().map(|name| form(name)).collect::<String>();
    let list = format!(
        "/// The names of all handlers, in the order of their numbers in an engine.\n\
         pub const NUMBERED: &[&str] = &[{}];\n\
         /// The handlers of an engine.\n\
         pub fn registry() -> crate::engine::Registry {{ crate::engine::Registry::default(){} }}\n\
         /// The same, as httpd knows them.\n\
         #[cfg(feature = \"httpd\")]\n\
         pub(crate) const FRONTS: &[crate::front::handler::Registration] = &[{}];\n",
        each(&|name| format!("\"{name}\",")),
        each(&|name| format!(".with(\"{name}\", {name}::handler())")),
        each(&|name| format!("{name}::FRONT,")),
    );
    println!("cargo::rustc-env=HANDLERS={}", names.join(", "));
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("handlers.rs"), list)
}

#[cfg(feature = "httpd")]
mod httpd {
    use std::env;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// What of httpd's and APR's headers the wrappers in src/apache use.
    const FUNCTIONS: &[&str] = &[
        "ap_add_cgi_vars",
        "ap_add_common_vars",
        "ap_check_cmd_context",
        "ap_close_listeners_ex",
        "ap_create_environment",
        "ap_destroy_sub_req",
        "ap_expr_lookup_default",
        "ap_expr_parse_cmd_mi",
        "ap_expr_str_exec",
        "ap_finalize_request_protocol",
        "ap_find_linked_module",
        "ap_find_module_short_name",
        "ap_get_brigade",
        "ap_get_conn_socket",
        "ap_get_module_config",
        "ap_get_server_module_loglevel",
        "ap_get_scoreboard_global",
        "ap_get_server_name",
        "ap_hook_child_init",
        "ap_hook_child_stopping",
        "ap_hook_create_request",
        "ap_hook_fixups",
        "ap_hook_handler",
        "ap_hook_map_to_storage",
        "ap_hook_monitor",
        "ap_hook_open_logs",
        "ap_hook_post_config",
        "ap_hook_post_read_request",
        "ap_hook_quick_handler",
        "ap_hook_suspend_connection",
        "ap_log_error_",
        "ap_log_rerror_",
        "ap_map_http_request_error",
        "ap_pass_brigade",
        "ap_process_request_after_handler",
        "ap_remove_input_filter_byhandle",
        "ap_remove_output_filter_byhandle",
        "ap_mpm_query",
        "ap_open_piped_log",
        "ap_piped_log_write_fd",
        "ap_retained_data_create",
        "ap_retained_data_get",
        "ap_rflush",
        "ap_run_drop_privileges",
        "ap_run_http_scheme",
        "ap_run_sub_req",
        "ap_rwrite",
        "ap_server_root_relative",
        "ap_set_content_type",
        "ap_set_module_config",
        "ap_set_module_loglevel",
        "ap_ssl_conn_is_ssl",
        "ap_ssl_var_lookup",
        "ap_start_lingering_close",
        "ap_state_query",
        "ap_sub_req_method_uri",
        "ap_unixd_mpm_get_retained_data",
        "apr_brigade_cleanup",
        "apr_brigade_create",
        "apr_brigade_destroy",
        "apr_brigade_write",
        "apr_dso_error",
        "apr_dso_load",
        "apr_dso_sym",
        "apr_dso_unload",
        "apr_file_close",
        "apr_file_open",
        "apr_optional_hook_add",
        "apr_os_file_get",
        "apr_os_sock_get",
        "apr_palloc",
        "apr_pool_cleanup_null",
        "apr_pool_cleanup_register",
        "apr_pool_create_unmanaged_ex",
        "apr_pool_destroy",
        "apr_pool_pre_cleanup_register",
        "apr_pool_userdata_get",
        "apr_pool_userdata_setn",
        "apr_proc_other_child_register",
        "apr_proc_other_child_unregister",
        "apr_pstrmemdup",
        "apr_sockaddr_info_get",
        "apr_socket_close",
        "apr_socket_pool_get",
        "apr_socket_timeout_get",
        "apr_socket_timeout_set",
        "apr_table_add",
        "apr_table_addn",
        "apr_table_clear",
        "apr_table_copy",
        "apr_table_get",
        "apr_table_set",
        "apr_table_setn",
        "apr_table_unset",
        "apr_table_elts",
        "shim_.*",
    ];
    /// What shim.c looks up when it is loaded.
    const OF_THE_SHIM: &[&str] = &[
        "ap_filter_flush",
        "ap_max_mem_free",
        "apr_bucket_eos_create",
        "apr_bucket_type_eos",
        "apr_bucket_type_socket",
    ];
    const TYPES: &[&str] = &[
        "apr_bucket_brigade",
        "apr_proc_t",
        "apr_table_entry_t",
        "cmd_parms",
        "command_rec",
        "ap_expr_eval_ctx_t",
        "ap_expr_info_t",
        "ap_expr_lookup_parms",
        "conn_rec",
        "module",
        "request_rec",
        "server_rec",
    ];
    const CONSTANTS: &[&str] = &[
        "ACCESS_CONF",
        "APLOG_.*",
        "APR_FOPEN_.*",
        "APR_FPROT_OS_DEFAULT",
        "APR_HOOK_.*",
        "APR_OC_REASON_.*",
        "APR_SUCCESS",
        "APR_ENOTIMPL",
        "AP_EXPR_FLAG_.*",
        "AP_EXPR_FUNC_.*",
        "AP_FILTER_ERROR",
        "AP_MPMQ_.*",
        "AP_SQ_.*",
        "DECLINED",
        "SUSPENDED",
        "GLOBAL_ONLY",
        "HTTP_BAD_REQUEST",
        "HTTP_FORBIDDEN",
        "HTTP_INTERNAL_SERVER_ERROR",
        "HTTP_MOVED_TEMPORARILY",
        "HTTP_NOT_FOUND",
        "HTTP_OK",
        "HTTP_SWITCHING_PROTOCOLS",
        "MODULE_MAGIC_.*",
        "M_GET",
        "M_INVALID",
        "OK",
        "OR_AUTHCFG",
        "PROXYREQ_.*",
        "RSRC_CONF",
        "ap_conftree",
        "ap_listeners",
        "ap_pid_fname",
        "ap_server_conf",
        "ap_server_root",
    ];

    pub fn build() -> Result<(), String> {
        for name in ["APXS", "APR_CONFIG", "APU_CONFIG", "LIBCLANG_PATH"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        println!("cargo::rerun-if-changed=src/apache/shim.c");
        println!("cargo::rerun-if-changed=src/apache/shim.h");

        let apxs =
            tool("APXS", &["apxs", "apxs2"], "apache2-dev (Debian, Ubuntu), httpd-devel (Fedora), apache2 (Arch)")?;
        let apr = tool("APR_CONFIG", &["apr-1-config", "apr-config"], "libapr1-dev (Debian, Ubuntu) or apr-devel")?;
        let apu =
            tool("APU_CONFIG", &["apu-1-config", "apu-config"], "libaprutil1-dev (Debian, Ubuntu) or apr-util-devel")?;

        let mut flags = vec![format!("-I{}", query(&apxs, &["-q", "INCLUDEDIR"])?)];
        for command in [(&apr, "--includes"), (&apr, "--cppflags"), (&apu, "--includes")] {
            flags.extend(query(command.0, &[command.1])?.split_whitespace().map(str::to_owned));
        }
        let include = Path::new(flags[0].trim_start_matches("-I")).join("httpd.h");
        if !include.exists() {
            return Err(format!(
                "{} is missing although {apxs} names its folder. Install apache2-dev (Debian, Ubuntu) or httpd-devel.",
                include.display()
            ));
        }

        let mut shim = cc::Build::new();
        shim.file("src/apache/shim.c");
        for flag in &flags {
            shim.flag(flag);
        }
        shim.warnings(true).extra_warnings(false).compile("websocket_shim");

        let mut bindings = bindgen::Builder::default()
            .header("src/apache/shim.h")
            .clang_args(&flags)
            .parse_callbacks(Box::new(bindgen::CargoCallbacks::new().rerun_on_header_files(false)))
            .layout_tests(false)
            .generate_comments(false)
            .merge_extern_blocks(true)
            .wrap_unsafe_ops(true)
            .rust_target(bindgen::RustTarget::stable(88, 0).map_err(|e| e.to_string())?);
        for name in FUNCTIONS {
            bindings = bindings.allowlist_function(name);
        }
        for name in TYPES {
            bindings = bindings.allowlist_type(name);
        }
        for name in CONSTANTS {
            bindings = bindings.allowlist_var(name);
        }
        let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?).join("httpd.rs");
        // bindgen panics where libclang is missing: say what to install instead.
        std::panic::set_hook(Box::new(|_| {}));
        let generated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bindings.generate()));
        let _ = std::panic::take_hook();
        generated
            .map_err(|_| "libclang is missing. Install libclang-dev (Debian, Ubuntu) or clang-devel (Fedora), or set LIBCLANG_PATH.")?
            .map_err(|e| format!("bindgen cannot read httpd's headers: {e}"))?
            .write_to_file(&out)
            .map_err(|e| format!("{}: {e}", out.display()))?;

        // Threads of ours may live as long as the process: the code must stay although httpd unloads modules on restart.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // httpd loads modules with RTLD_GLOBAL: without this, a newer copy of the module would find the older one's record.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
        // Unit tests are an executable without httpd around it, of which they call nothing: its names are enough.
        let variables = CONSTANTS.iter().filter(|name| name.starts_with("ap_"));
        let names = FUNCTIONS.iter().filter(|name| !name.starts_with("shim_")).chain(variables).chain(OF_THE_SHIM);
        let stubs = out.with_file_name("stubs.c");
        std::fs::write(&stubs, names.map(|name| format!("void {name}(void) {{}}\n")).collect::<String>())
            .map_err(|e| format!("{}: {e}", stubs.display()))?;
        cc::Build::new().file(stubs).cargo_metadata(false).compile("httpd_stubs");
        // Those that link to the library, as benchmarks do, do not even reach them.
        println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
        println!("cargo::rustc-link-arg=-Wl,-z,lazy");
        Ok(())
    }

    /// The first of these commands that can be run, or the one that the environment names.
    fn tool(variable: &str, names: &[&str], packages: &str) -> Result<String, String> {
        if let Ok(named) = env::var(variable) {
            return Ok(named);
        }
        names
            .iter()
            .find(|name| Command::new(name).arg("--help").output().is_ok())
            .map(|name| (*name).to_owned())
            .ok_or_else(|| format!("{} is not in PATH. Install {packages}, or set {variable}=/path/to/it.", names[0]))
    }

    fn query(program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "`{program} {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
