#!/usr/bin/env perl
# The engine's command line: help, configuration file, --inspect, and one
# sentence with exit 1 for every model file that is broken.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use File::Temp;
use JSON::PP;
use Test::More;

my $dir = File::Temp::tempdir(CLEANUP => 1);

sub engine {
    my (@args) = @_;
    my $pid = open(my $p, '-|') // die;
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        exec LLM->build . '/llm-engine', @args;
    }
    local $/;
    my $out = <$p> // '';
    close $p;
    return ($?, $out);
}

sub refused {
    my ($what, $like, @args) = @_;
    my ($st, $out) = engine('--listen', "$dir/e.sock", @args);
    is($st, 256, "$what: exit 1") or diag($out);
    is(() = $out =~ /\n/g, 1, "$what: one line") or diag($out);
    like($out, $like, "$what: says why");
}

my ($st, $out) = engine('--help');
is($st, 0, '--help');
like($out, qr/--$_\b/, "--help names $_")
    for qw(model listen device kv_type batch_tokens step_min drain_timeout inspect);
($st, $out) = engine('--version');
is($st, 0, '--version');
like($out, qr/llm-engine/, 'says its name');

refused('unknown option', qr/nonsense/, '--nonsense', '1');
refused('bad number', qr/slots/, '--slots', 'x');
refused('no model', qr/model/, '--device', 'cpu');
refused('no such file', qr/nowhere/, '--model', "$dir/nowhere.gguf");
refused('a directory', qr/\Q$dir/, '--model', $dir);
refused('bad device', qr/tpu/, '--device', 'tpu');
refused('bad kv_type', qr/f8/, '--device', 'null', '--kv_type', 'f8');
refused('heads too small for q8_0', qr/q8_0 needs heads of a multiple of 32 elements, found \d+$/m,
    '--device', 'null', '--kv_type', 'q8_0');
refused('bad prefix_cache', qr/prefix_cache/, '--device', 'null', '--prefix_cache', 'yes');
refused('bad prefix_share', qr/prefix_share/, '--device', 'null', '--prefix_share', 'some');
refused('bad isa', qr/mmx/, '--device', 'null', '--cpu_isa', 'mmx');
refused("record with $_->[0]", qr/^llm-engine: record does not go with $_->[0]: /,
    '--model', LLM->demo, '--record', "$dir/rec", @$_[1 .. $#$_])
    for ['prefix_pin', '--prefix_pin', $0], ['kv_host_memory', qw(--kv_host_memory 1m)],
    ['planning_depth 1', qw(--planning_depth 1)];
ok(!-e "$dir/rec", 'and nothing is recorded');
refused('no such CPU', qr{cpus.*found 1000}, '--device', 'null', '--cpus', '0,1000');
refused('bad cpus', qr{0-3,8.*found "1-"}, '--device', 'null', '--cpus', '1-');
refused('no conf', qr/none\.conf/, '-c', "$dir/none.conf");

($st, $out) = engine('--device', 'null', '--inspect');
is($st, 0, '--inspect without a model');
my ($other, $same) = engine('--device', 'null', '--check');
is("$other $same", "$st $out", '--check is the same');

open my $f, '>', "$dir/e.conf";
print $f "device null\nmodel_name fromfile # why\nslots 5\n";
close $f;
($st, $out) = engine('-c', "$dir/e.conf", '--inspect');
is($st, 0, 'conf file') or diag($out);
like($out, qr/fromfile/, 'is used');

{
    my $model = LLM->demo;
    ($st, $out) = engine('--inspect', $model);
    is($st, 0, '--inspect');
    like($out, qr/^architecture +llama$/m, 'architecture');
    like($out, qr/^  Q8_0 +\d+ tensors, \d+ bytes$/m, 'weights by type');
    like($out, qr/^layers +\d+\nhidden +\d+\nheads +\d+, \d+ for keys, of \d+\nffn +\d+\nvocabulary +\d+$/m,
        'shapes');
    like($out, qr/^chat template +\S/m, 'template');
    unlike($out, qr/converted/, 'nothing is converted');
    like($out, qr/^tokenizer +\S.*, \d+ tokens$/m, 'tokenizer');
    my ($plan) = $out =~ /^device memory +(\d+) bytes$/m;
    my ($pool) = $out =~ /^kv blocks +\d+, (\d+) bytes$/m;
    ($st, $out) = engine('--inspect', $model, '--context', 128, '--batch_rows', 2);
    my ($less) = $out =~ /^device memory +(\d+) bytes$/m;
    cmp_ok($less, '<', $plan, 'a shorter context and fewer rows take less');
    cmp_ok($plan, '>', $pool, 'and weights count too');
    like($out, qr/ngx-llm-demo/, 'name');
    like($out, qr/block/, 'blocks');
    open my $g, '<:raw', $model;
    local $/;
    my $bytes = <$g>;
    my $try = sub {
        my ($what, $content, $like) = @_;
        open my $h, '>:raw', "$dir/bad.gguf";
        print $h $content;
        close $h;
        refused($what, $like // qr/bad\.gguf/, '--model', "$dir/bad.gguf");
    };
    $try->('empty', '');
    $try->('not GGUF', 'x' x 5000);
    $try->("cut at $_", substr $bytes, 0, $_) for 3, 23, 24, 100, 5000, 100000,
        length($bytes) - 4;
    my $huge = $bytes;
    substr($huge, 8, 8) = "\xff" x 8;
    $try->('2^64 tensors', $huge);
    ($huge = $bytes) =~ s/blk\.2\.attn_q\.weight/blk.2.attn_Q.weight/;
    $try->('a missing tensor', $huge, qr/blk\.2\.attn_q\.weight/);
    ($huge = $bytes) =~ s/blk\.2\.attn_q\.weight/blk.2.attn_k.weight/;
    $try->('a tensor twice', $huge, qr/blk\.2\.attn_k\.weight/);
    mkdir "$dir/hf" or die $!;
    my $config = sub {
        open my $h, '>', "$dir/hf/config.json";
        print $h @_;
        close $h;
    };
    $config->('{"model_type":"llama"');
    refused('a broken config.json', qr{hf/config\.json: }, '--model', "$dir/hf");
    $config->('{"model_type":"eliza"}');
    refused('an unknown family', qr/supported \(.*llama.*found "eliza"/, '--model', "$dir/hf");
    $config->('{"model_type":"llama"}');
    refused('no weights', qr/model\.safetensors/, '--model', "$dir/hf/config.json");
    refused('an unknown policy', qr/policy must be fair, prefix or fcfs, found "best"/,
        '--model', $model, '--policy', 'best');
    refused('KV memory too small', qr/kv_memory/, '--model', $model,
        '--kv_memory', '1k');
}

# a directory as Hugging Face has it, whole and broken
{
    my $from = "$FindBin::Bin/../tests/data/models/llama-linear";
    my $hf = "$dir/whole";
    mkdir $hf or die $!;
    my $slurp = sub {
        open my $h, '<:raw', $_[0] or die "$_[0]: $!";
        local $/;
        return scalar <$h>;
    };
    my $put = sub {
        my ($name, $bytes) = @_;
        open my $h, '>:raw', "$hf/$name" or die $!;
        print $h $bytes;
        close $h;
    };
    my $tokens = sub {
        my $vocab = join ',', map { qq{"t$_":$_} } 0 .. $_[0] - 1;
        $put->('tokenizer.json', qq({"decoder":{"type":"Fuse"},"model":{"type":"BPE","vocab":{$vocab},"merges":[]}}));
    };
    my $weights = $slurp->("$from/model.safetensors");
    $put->('config.json', $slurp->("$from/config.json"));
    $put->('model.safetensors', $weights);
    refused('no tokenizer', qr/whole: .*tokenizer/, '--model', $hf);
    $tokens->(307);
    ($st, $out) = engine('--inspect', $hf);
    is($st, 0, 'a directory') or diag($out);
    like($out, qr/^model +whole\nfrom +safetensors, 1 file, \Q$hf\E$/m, 'its name and kind');
    like($out, qr/^tokenizer +BPE, 307 tokens\nchat template +plain text$/m, 'its tokenizer');
    $put->('chat_template.jinja', '{{ messages }}');
    ($st, $out) = engine('--inspect', "$hf/config.json");
    like($out, qr/^chat template +its own template$/m, 'its template, and a file stands for it');
    $tokens->(308);
    refused('more tokens than embeddings', qr/at most 307 tokens.*found 308/, '--model', $hf);
    $tokens->(307);
    for my $n (0, 7, 8, 100, 4000, length($weights) - 1) {
        $put->('model.safetensors', substr $weights, 0, $n);
        refused("weights cut at $n", qr/model\.safetensors: /, '--model', $hf);
    }
    # latents in the cache, and a layer that is not looked at
    $put->($_, $slurp->("$from/../deepseek3/$_")) for qw(config.json model.safetensors);
    ($st, $out) = engine('--inspect', $hf, '--kv_type', 'f32');
    like($out, qr/^kv token +@{[4 * (48 + 8)]} bytes a layer: a latent and what is rotated$/m, 'latents');
    like($out, qr/^left out +5 tensors, \d+ bytes: they predict further tokens/m, 'left out');
    ($st, $out) = engine('--inspect', $hf, '--kv_type', 'bf16');
    like($out, qr/^kv token +@{[2 * (48 + 8)]} bytes/m, 'and smaller ones');
    $put->('config.json', $slurp->("$from/config.json"));

    (my $other = $weights) =~ s/layers\.1\.mlp\.up_proj\.weight/layers.1.mlp.uq_proj.weight/;
    $put->('model.safetensors', $other);
    refused('a missing weight', qr/layers\.1\.mlp\.up_proj/, '--model', $hf);

    # all matrices in F8_E4M3, alone and with factors for blocks: what is
    # converted says so, and how good it is
    my $f8 = sub {
        my ($factors) = @_;
        my ($header, $data, $at) = ({}, '', unpack 'Q<', $weights);
        my $old = decode_json(substr $weights, 8, $at);
        delete $old->{__metadata__};
        my $add = sub {
            my ($name, $type, $shape, $bytes) = @_;
            $header->{$name} = { dtype => $type, shape => $shape,
                data_offsets => [length $data, length($data) + length $bytes] };
            $data .= $bytes;
        };
        for my $name (sort keys %$old) {
            my ($shape, $from, $to) = (@{ $old->{$name} }{'shape'}, @{ $old->{$name}{data_offsets} });
            if (@$shape == 1) {
                $add->($name, $old->{$name}{dtype}, $shape, substr $weights, 8 + $at + $from, $to - $from);
                next;
            }
            $add->($name, 'F8_E4M3', $shape, '8' x ($shape->[0] * $shape->[1]));
            my @blocks = map { int(($_ + 127) / 128) } @$shape;
            $add->("${name}_scale_inv", 'F32', \@blocks, pack('f<', 0.3) x ($blocks[0] * $blocks[1]))
                if $factors;
        }
        $header = encode_json($header);
        $put->('model.safetensors', pack('Q<', length $header) . $header . $data);
        my $config = decode_json($slurp->("$from/config.json"));
        $config->{quantization_config} = { quant_method => 'fp8', weight_block_size => [128, 128] }
            if $factors;
        $put->('config.json', encode_json($config));
    };
    for my $row ([0, 'without error'], [1, 'rounded by at most 0.4 %']) {
        my ($factors, $how) = @$row;
        $f8->($factors);
        ($st, $out) = engine('--inspect', $hf);
        is($st, 0, "F8, $how") or diag($out);
        like($out, qr/^  converted +[1-9]\d* bytes of BF16, \Q$how\E$/m, '--inspect says so');
        unlink "$dir/f8.log";
        my $pid = fork() // die;
        if (!$pid) {
            open STDERR, '>', "$dir/f8.log";
            exec LLM->build . '/llm-engine', '--model', $hf, '--listen', "$dir/f8.sock";
        }
        my $tries = 0;
        select undef, undef, undef, 0.05
            until (-e "$dir/f8.log" && $slurp->("$dir/f8.log") =~ /ready: /) || $tries++ > 400;
        kill QUIT => $pid;
        waitpid $pid, 0;
        like($slurp->("$dir/f8.log"), qr/holds weights .*[\d.]+ MB of BF16 converted, \Q$how\E\)/, 'and so does the log');
    }

    $from = "$FindBin::Bin/../tests/data/models/gpt-oss-mxfp4";
    $put->($_, $slurp->("$from/$_")) for qw(config.json model.safetensors);
    ($st, $out) = engine('--inspect', $hf);
    is($st, 0, 'experts in MXFP4') or diag($out);
    like($out, qr/^experts +7, 2 for each token, ffn 96\nwindow +31 tokens in 1 of 2 layers$/m,
        'how many, and windows');
    like($out, qr/^  MXFP4 +42 tensors, 137088 bytes$/m, 'they stay what they are');
}

# other processes' habits do not end it
my $sock = "$dir/s.sock";
my $pid = fork() // die;
if (!$pid) {
    open STDERR, '>', "$dir/log";
    exec LLM->build . '/llm-engine', '--device', 'null', '--listen', $sock;
}
my $tries = 0;
select undef, undef, undef, 0.05 until -S $sock || $tries++ > 200;
kill $_ => $pid for qw(HUP USR1 USR2);
select undef, undef, undef, 0.2;
ok(kill(0 => $pid), 'HUP, USR1 and USR2 leave it alone');
kill QUIT => $pid;
waitpid $pid, 0;
is($?, 0, 'QUIT ends it in order');
open my $log, '<', "$dir/log" or die $!;
like(join('', <$log>), qr/holds weights F32 .*ready: null .*blocks.*draining: 0 requests.*exit/s, 'as its log says');

done_testing();
