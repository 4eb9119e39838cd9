fn main() -> ! {
    hushfs::cli::main()
}
