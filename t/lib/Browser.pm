package Browser;

# A headless Chromium, driven through chromedriver by the W3C WebDriver
# protocol.  Perl's core modules only.
#
#     my $why = Browser->missing;            # what is not installed, or ''
#     my $b = Browser->new("$dir/browser");  # a fresh profile there
#     $b->visit($url);
#     $b->type('#input', "Hello\n");         # real key presses
#     $b->wait_for('return document.title');     # until it is true
#     $b->shot($file);                       # a PNG
#     $b->quit;

use strict;
use warnings;

use Encode ();
use HTTP::Tiny ();
use JSON::PP ();
use MIME::Base64 ();
use POSIX ();
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->utf8->allow_nonref;
my $element = 'element-6066-11e4-a52e-4f735466cecf'; # by the standard

# Keys that are no characters, as the protocol names them.
our %key = (escape => "\x{e00c}", enter => "\x{e007}", tab => "\x{e004}",
    shift => "\x{e008}", control => "\x{e009}");

# No telemetry, updates or first-run pages: nothing but the page makes
# requests.  Containers often have a /dev/shm too small for it.
my @flags = qw(--headless --no-sandbox --disable-gpu --disable-quic
    --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --disable-dev-shm-usage);

sub which {
    my ($name) = @_;
    return (grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH} // ''), '/usr/bin')[0];
}

sub missing {
    return join ' and ', grep { !which($_) } qw(chromium chromedriver);
}

sub new {
    my ($class, $dir) = @_;
    mkdir $dir or die "$dir: $!";
    my $self = bless { dir => $dir, owner => $$, http => HTTP::Tiny->new(
        timeout => 60, proxy => undef, http_proxy => undef), patience => 60 }, $class;
    $self->start_driver;
    my $s = $self->call(POST => '/session', { capabilities => { alwaysMatch => {
        browserName => 'chrome',
        'goog:loggingPrefs' => { browser => 'ALL', performance => 'ALL' },
        'goog:chromeOptions' => {
            binary => which('chromium'),
            args => [@flags, "--user-data-dir=$dir/profile"],
            perfLoggingPrefs => { enablePage => JSON::PP::false },
        },
    } } });
    $self->{session} = "/session/$s->{sessionId}";
    return $self;
}

# In a process group of its own, which the browser stays in.
sub start_driver {
    my ($self) = @_;
    my $log = "$self->{dir}/chromedriver.log";
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        delete @ENV{grep { /_proxy$/i } keys %ENV};
        $ENV{HOME} = $self->{dir};
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', $log;
        open STDERR, '>&', \*STDOUT;
        POSIX::setsid();
        exec which('chromedriver'), '--port=0' or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    my ($port, $end) = (undef, time + 30);
    until ($port) {
        die "chromedriver did not start; see $log"
            if time > $end || waitpid($pid, POSIX::WNOHANG()) == $pid;
        sleep 0.02;
        open my $f, '<', $log or next;
        ($port) = map { /on port ([1-9]\d*)/ ? $1 : () } <$f>;
    }
    $self->{base} = "http://127.0.0.1:$port";
}

# One command; dies with what the driver says against it.  A picture is taken
# from the JSON by hand: JSON::PP looks at every byte.
sub call {
    my ($self, $method, $path, $body) = @_;
    my $r = $self->{http}->request($method, $self->{base} . ($self->{session} // '') . $path,
        $method eq 'POST' ? { content => $json->encode($body // {}) } : ());
    return $1 if $path eq '/screenshot' && $r->{content} =~ /"value":"([^"]+)"/;
    my $v = eval { $json->decode($r->{content})->{value} };
    die "webdriver: $path: " . (ref $v eq 'HASH' && $v->{message} || $r->{content} || $r->{status})
        if !$r->{success};
    return $v;
}

sub visit { my ($self, $url) = @_; $self->call(POST => '/url', { url => $url }) }

# The body of a function in the page; a promise is waited for.
sub js {
    my ($self, $script, @args) = @_;
    return $self->call(POST => '/execute/sync', { script => $script, args => \@args });
}

# Until the script gives something true, which is returned; else 0, when
# patience, in seconds, has ended.
sub wait_for {
    my ($self, $script, @args) = @_;
    my $end = time + $self->{patience};
    while (time < $end) {
        my $v = $self->js($script, @args);
        return $v if $v;
        sleep 0.03;
    }
    return 0;
}

sub find {
    my ($self, $css) = @_;
    return $self->call(POST => '/element', { using => 'css selector', value => $css })->{$element};
}

sub click { my ($self, $css) = @_; $self->call(POST => '/element/' . $self->find($css) . '/click') }

sub type {
    my ($self, $css, $text) = @_;
    $self->call(POST => '/element/' . $self->find($css) . '/value', { text => $text });
}

sub clear { my ($self, $css) = @_; $self->call(POST => '/element/' . $self->find($css) . '/clear') }

# Keys to whatever has the focus, as a person presses them.
sub press {
    my ($self, @keys) = @_;
    my @down = map { { type => 'keyDown', value => $_ } } @keys;
    my @up = map { { type => 'keyUp', value => $_ } } reverse @keys;
    $self->call(POST => '/actions', { actions => [{ type => 'key', id => 'keyboard',
        actions => [@down, @up] }] });
}

# What the page wrote to the console, or what the network did, since the last
# call (browser, performance).
sub logs {
    my ($self, $type) = @_;
    return @{ $self->call(POST => '/se/log', { type => $type }) };
}

# The requests that were made since the last call: DevTools' own records.
sub requests {
    my ($self) = @_;
    return map { $json->decode(Encode::encode_utf8($_->{message}))->{message}{params}{request} }
        grep { $_->{message} =~ /"Network\.requestWillBeSent"/ } $self->logs('performance');
}

# A command of DevTools, for what WebDriver has no word for.
sub cdp {
    my ($self, $cmd, %params) = @_;
    return $self->call(POST => '/goog/cdp/execute', { cmd => $cmd, params => \%params });
}

sub size {
    my ($self, $width, $height, $mobile) = @_;
    $self->cdp('Emulation.setDeviceMetricsOverride', width => 0 + $width, height => 0 + $height,
        deviceScaleFactor => $mobile ? 2 : 1, mobile => $mobile ? JSON::PP::true : JSON::PP::false);
    $self->cdp('Emulation.setTouchEmulationEnabled',
        enabled => $mobile ? JSON::PP::true : JSON::PP::false);
}

sub dark {
    my ($self, $on) = @_;
    $self->cdp('Emulation.setEmulatedMedia', features => [
        { name => 'prefers-color-scheme', value => $on ? 'dark' : 'light' }]);
}

sub shot {
    my ($self, $file) = @_;
    my $png = MIME::Base64::decode_base64($self->call(GET => '/screenshot'));
    open my $f, '>:raw', $file or die "$file: $!";
    print $f $png;
    close $f;
}

# Ends browser and driver, whatever state they are in.
sub quit {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    eval { $self->call(DELETE => '') } if $self->{session};
    kill KILL => -$pid;
    waitpid $pid, 0;
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local ($?, $@);
    $self->quit;
}

1;
